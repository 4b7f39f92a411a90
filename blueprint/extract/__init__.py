"""From bytes to a handler's typed parameters, and from its return value to bytes.

What a handler is annotated with is its interface: `read_signature` reads it, `inputs_decoder` and
`result_encoder` carry it over the encoding that the chain declares for the job (ABI for an empty schema,
else TLV version 2).
"""

from blueprint.extract.annotations import (
    I8,
    I16,
    I32,
    I64,
    I128,
    I256,
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    Bytes32,
    FixedArray,
    FixedBytes,
    Void,
)
from blueprint.extract.binding import (
    declared_schema,
    failure_encoder,
    inputs_decoder,
    result_encoder,
    result_validator,
)
from blueprint.extract.signature import RawResult, Signature, read_signature

__all__ = [
    "I8",
    "I16",
    "I32",
    "I64",
    "I128",
    "I256",
    "U8",
    "U16",
    "U32",
    "U64",
    "U128",
    "U256",
    "Bytes32",
    "FixedArray",
    "FixedBytes",
    "RawResult",
    "Signature",
    "Void",
    "declared_schema",
    "failure_encoder",
    "inputs_decoder",
    "read_signature",
    "result_encoder",
    "result_validator",
]
