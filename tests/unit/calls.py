"""Job calls for tests, with everything that a test does not care about filled in."""

from eth_utils import keccak

from blueprint.types import Address, CallKey, Hash, JobCall


def make_call(job_index: int, inputs: bytes = b"", *, call_id: int = 7) -> JobCall:
    """Return a call of a job with some inputs."""
    zero = Hash(bytes(32))
    key = CallKey(chain_id=31337, contract=Address(bytes(19) + b"\1"), service_id=3, call_id=call_id)
    return JobCall(
        key=key,
        job_index=job_index,
        caller=Address(b"\xca" * 20),
        inputs=inputs,
        inputs_hash=Hash(keccak(inputs)),
        block_number=1,
        block_hash=zero,
        transaction_hash=zero,
        log_index=0,
    )
