"""Public fakes with which a job's author tests a handler in milliseconds, and this project tests itself.

::

    async def test_my_job_reverses_its_input():
        output = await my_handler(job_call(b"abc"))
        assert output == b"cba"

``FakeChain`` is a chain in memory behind the node's own RPC port: a whole node runs on it without a network.
Invariant: a fake behaves as the real part does in what it covers, which shared conformance tests prove.
"""

from blueprint.keccak import keccak256
from blueprint.testing.chain import FakeChain
from blueprint.testing.clock import FakeClock
from blueprint.types import Address, CallKey, Hash, JobCall, PriceQuote

__all__ = ["FakeChain", "FakeClock", "job_call"]


def job_call(
    inputs: bytes,
    *,
    job_index: int = 0,
    call_id: int = 0,
    service_id: int = 0,
    caller: Address = Address(b"\xca" * 20),  # noqa: B008 - a constant
    price_quote: PriceQuote | None = None,
) -> JobCall:
    """Return a call as a handler receives it, with made-up names for its chain and block."""
    return JobCall(
        key=CallKey(chain_id=31_337, contract=FakeChain.contract, service_id=service_id, call_id=call_id),
        job_index=job_index,
        caller=caller,
        inputs=inputs,
        inputs_hash=keccak256(inputs),
        block_number=1,
        block_hash=Hash(keccak256(b"block")),
        transaction_hash=Hash(keccak256(b"transaction")),
        log_index=0,
        price_quote=price_quote,
    )
