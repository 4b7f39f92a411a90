"""A signature bound to what the chain declares: from inputs to values, from a value to a result.

The inputs are one value: a struct of the parameters, or the parameter itself where there is only one. In TLV
a schema's fields are the parameters (or the members of the only parameter, if that is a dataclass), in order
and under the same names. A result schema's fields are the members of the returned dataclass, or one field
for another type; besides them one field named ``error`` or ``error_message``, a String or Optional(String),
tells of a failure.

Invariant: every check that needs only types is made here, when a job is bound, and none when it is called.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from blueprint.errors import InputsUndecodableError, RegistrationError
from blueprint.extract.abi import abi_type, decode_value, encode_value
from blueprint.extract.annotations import Binding
from blueprint.extract.shape import Kind, Plain, Shape, describe, zero
from blueprint.extract.signature import Signature
from blueprint.extract.tlv import decode_payload, encode_payload
from blueprint.extract.tlv_schema import parse_schema, serialise_schema
from blueprint.job import Failure, FailureEncoder, JobSchema

__all__ = [
    "ERROR_NAMES",
    "declared_schema",
    "failure_encoder",
    "inputs_decoder",
    "result_encoder",
    "result_validator",
]

ERROR_NAMES = ("error", "errormessage")
"""Names, without case and underscores, of the field of a TLV result that carries the message of a failure."""
ERROR_VERSION = 1
MAX_ZERO_VALUES = 100_000
_ERROR_ANSWER = Shape(
    kind=Kind.STRUCT,
    children=(
        Shape(kind=Kind.U16, name="version"),
        Shape(kind=Kind.U8, name="status"),
        Shape(kind=Kind.STRING, name="errorMessage"),
    ),
)
_ERROR_FIELD = Shape(kind=Kind.OPTIONAL, name="error", children=(Shape(kind=Kind.STRING),))


def inputs_decoder(signature: Signature, schema: bytes) -> Callable[[bytes], list[object]]:
    """Return the function from a call's inputs to the values of the handler's parameters.

    It raises InputsUndecodableError for bytes that are no encoding, InputsInvalidError where a dataclass
    refuses.

    Raises:
        RegistrationError: the schema does not match the signature; the message names the first difference.
    """
    parameters = signature.parameters
    if signature.reads_call_only:
        if parse_schema(schema):
            raise RegistrationError(
                "the handler reads its inputs itself, but the chain declares a params schema"
            )
        return lambda _: []
    if schema:
        return _tlv_inputs(parameters, parse_schema(schema))
    return _abi_inputs(parameters)


def _abi_inputs(parameters: Sequence[Binding]) -> Callable[[bytes], list[object]]:
    """Void parameters do not travel: the ABI has nothing for them."""
    carried = [parameter.shape for parameter in parameters if parameter.shape.kind is not Kind.VOID]
    for shape in carried:
        abi_type(shape)
    whole = carried[0] if len(carried) == 1 else Shape(kind=Kind.STRUCT, children=tuple(carried))

    def decode(inputs: bytes) -> list[object]:
        if not carried:
            return _nothing(parameters, inputs)
        value = decode_value(whole, inputs)
        values = iter(value if len(carried) > 1 and isinstance(value, tuple) else (value,))
        return [None if p.shape.kind is Kind.VOID else p.load(next(values)) for p in parameters]

    return decode


def _tlv_inputs(parameters: Sequence[Binding], fields: Sequence[Shape]) -> Callable[[bytes], list[object]]:
    only = parameters[0] if len(parameters) == 1 else None
    if only and only.shape.kind is Kind.STRUCT and not _difference([only.shape], fields):
        return lambda inputs: [only.load(decode_payload(fields, inputs)[0])]
    if only and only.shape.kind is Kind.STRUCT:
        _require_match(only.shape.children, fields, "params")
        return lambda inputs: [only.load(decode_payload(fields, inputs))]
    _require_match([parameter.shape for parameter in parameters], fields, "params")
    return lambda inputs: _load_all(parameters, decode_payload(fields, inputs))


def _nothing(parameters: Sequence[Binding], inputs: bytes) -> list[object]:
    if inputs:
        raise InputsUndecodableError(f"inputs: this job takes none, received {len(inputs)} bytes")
    return [None for _ in parameters]


def _load_all(parameters: Sequence[Binding], values: Sequence[Plain]) -> list[object]:
    return [parameter.load(value) for parameter, value in zip(parameters, values, strict=True)]


def result_encoder(signature: Signature, schema: bytes) -> Callable[[object], bytes]:
    """Return the function from what the handler returned to the bytes of its result.

    It raises UnencodableError for a value that is not of the annotated type.

    Raises:
        RegistrationError: the schema does not match the return annotation.
    """
    result = signature.result
    if result is None:
        if schema:
            raise RegistrationError(
                "the handler encodes its result itself, but the chain declares a result schema"
            )
        return _raw
    if schema:
        return _tlv_result(result, parse_schema(schema))
    if result.shape.kind is Kind.VOID:
        return lambda value: encode_payload((result.shape,), (result.dump(value),))
    abi_type(result.shape)
    return lambda value: encode_value(result.shape, result.dump(value))


def _raw(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"a handler annotated RawResult must return bytes, received {type(value).__name__}")
    return value


def _tlv_result(result: Binding, fields: tuple[Shape, ...]) -> Callable[[object], bytes]:
    own = _result_fields(result.shape)
    error_at = _error_index(fields)
    if len(fields) == len(own) + 1 and error_at is not None:
        rest = fields[:error_at] + fields[error_at + 1 :]
        _require_match(own, rest, "result")
        no_error = zero(fields[error_at])

        def encode_with_error(value: object) -> bytes:
            values = _result_values(result, value)
            return encode_payload(fields, (*values[:error_at], no_error, *values[error_at:]))

        return encode_with_error
    _require_match(own, fields, "result")
    return lambda value: encode_payload(fields, _result_values(result, value))


def _result_fields(shape: Shape) -> tuple[Shape, ...]:
    if shape.kind is Kind.STRUCT:
        return shape.children
    return () if shape.kind is Kind.VOID else (shape,)


def _result_values(result: Binding, value: object) -> tuple[Plain, ...]:
    plain = result.dump(value)
    if result.shape.kind is Kind.VOID:
        encode_payload((result.shape,), (plain,))  # refuses anything but None
        return ()
    return plain if result.shape.kind is Kind.STRUCT and isinstance(plain, tuple) else (plain,)


def failure_encoder(schema: bytes) -> FailureEncoder:
    """Return the function from a failure to an answer that the chain accepts under this result schema.

    Empty schema: the ABI encoding of one tuple ``(uint16 version, uint8 status, string errorMessage)``,
    version 1. Otherwise: the message in the error field, every other field its zero value.

    Raises:
        RegistrationError: the schema cannot carry an error answer; such a job must not be served, because a
        call
            that is never answered keeps its payment for ever.
    """
    if not schema:
        return lambda failure: encode_value(
            _ERROR_ANSWER, (ERROR_VERSION, int(failure.status), failure.message)
        )
    fields = parse_schema(schema)
    error_at = _error_index(fields)
    if error_at is None:
        raise RegistrationError(
            f"the result schema ({', '.join(_shown(field) for field in fields) or 'no fields'}) cannot "
            "carry an error answer; add a String or Optional(String) field named 'error' or 'error_message', "
            "or declare no schema"
        )
    size = sum(_zero_values(field) for field in fields)
    if size > MAX_ZERO_VALUES:
        raise RegistrationError(f"an error answer would hold {size} zero values, more than {MAX_ZERO_VALUES}")
    zeros = [zero(field) for field in fields]

    def encode(failure: Failure) -> bytes:
        return encode_payload(fields, [*zeros[:error_at], failure.message, *zeros[error_at + 1 :]])

    return encode


def _error_index(fields: Sequence[Shape]) -> int | None:
    for number, field in enumerate(fields):
        text = field.children[0] if field.kind is Kind.OPTIONAL else field
        if _normal(field.name) in ERROR_NAMES and text.kind is Kind.STRING:
            return number
    return None


def _zero_values(shape: Shape) -> int:
    if shape.kind is Kind.ARRAY:
        return 1 + shape.length * _zero_values(shape.children[0])
    return 1 + (sum(_zero_values(child) for child in shape.children) if shape.kind is Kind.STRUCT else 0)


def result_validator(schema: bytes) -> Callable[[bytes], None]:
    """Return a check that bytes are a result which the chain accepts; it raises InputsUndecodableError."""
    if not schema:
        return lambda _: None
    fields = parse_schema(schema)

    def validate(output: bytes) -> None:
        decode_payload(fields, output)

    return validate


def declared_schema(signature: Signature) -> JobSchema:
    """Return the TLV schemas for a signature, as a deployment declares them on chain.

    The result gets an ``error`` field, Optional(String), unless it has one.

    Raises:
        RegistrationError: the handler reads or writes bytes itself, so that no schema describes it, or one
        of its
            types is outside what a schema can say.
    """
    if signature.reads_call_only or signature.result is None:
        raise RegistrationError("the handler reads or writes bytes itself; declare no schema for its job")
    params = tuple(parameter.shape for parameter in signature.parameters)
    if len(params) == 1 and params[0].kind is Kind.STRUCT:
        params = params[0].children
    result = _result_fields(signature.result.shape)
    if _error_index(result) is None:
        result = (*result, _ERROR_FIELD)
    return JobSchema(params=serialise_schema(params), result=serialise_schema(result))


def _require_match(own: Sequence[Shape], fields: Sequence[Shape], what: str) -> None:
    difference = _difference(own, fields)
    if difference:
        raise RegistrationError(f"the {what} schema on chain does not match the handler: {difference}")


def _difference(own: Sequence[Shape], fields: Sequence[Shape], path: str = "") -> str:
    """Say how the first field differs, or nothing. A name counts where both sides have one."""
    if len(own) != len(fields):
        ours, theirs = (", ".join(_shown(shape) for shape in shapes) or "none" for shapes in (own, fields))
        return (
            f"{path or 'the fields'}: the handler has {len(own)} ({ours}), the chain {len(fields)} ({theirs})"
        )
    for number, (mine, theirs_one) in enumerate(zip(own, fields, strict=True)):
        where = f"{path}.{mine.name or number}" if path else mine.name or f"field {number}"
        if mine.name and theirs_one.name and _normal(mine.name) != _normal(theirs_one.name):
            return f"{where}: the chain calls field {number} {theirs_one.name!r}; rename or reorder yours"
        if mine.kind is not theirs_one.kind or mine.length != theirs_one.length:
            bare = [describe(replace(shape, name="")) for shape in (mine, theirs_one)]
            return f"{where}: the handler has {bare[0]}, the chain {bare[1]}"
        inner = _difference(mine.children, theirs_one.children, where)
        if inner:
            return inner
    return ""


def _normal(name: str) -> str:
    return name.replace("_", "").lower()


def _shown(shape: Shape) -> str:
    return f"{shape.name}: {describe(shape)}" if shape.name else describe(shape)
