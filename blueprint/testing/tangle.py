"""The job contract's rules in memory: which results it takes, how it refuses others, which logs it leaves.

Source of the rule: Tangle EVM job protocol, ``submitResult``. Payment, managers' hooks and result schemas are
left out: a test that needs those runs against LocalTangle on a real chain.
Invariant: a transaction changes the state as a whole, or reverts with the contract's own error
and changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from eth_abi.abi import decode, encode

from blueprint.chain.protocol import CUSTOM_ERRORS, FUNCTIONS, TOPICS, decode_revert
from blueprint.errors import RevertedError
from blueprint.types import Address, Hash

__all__ = ["FakeLog", "FakeService", "TangleState", "revert"]

_SUBMITTED: Final = TOPICS["JobSubmitted(uint64,uint64,uint8,address,bytes)"]
_QUOTED: Final = TOPICS["JobSubmittedFromQuote(uint64,uint64,uint8,address,address[],uint256,bytes)"]
_RESULT: Final = TOPICS["JobResultSubmitted(uint64,uint64,address,bytes)"]
_COMPLETED: Final = TOPICS["JobCompleted(uint64,uint64)"]
_SELECTOR_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class FakeLog:
    """A log as the contract emits it."""

    topics: tuple[Hash, ...]
    data: bytes = field(repr=False)


@dataclass(slots=True)
class _Call:
    job_index: int
    caller: Address
    quoted: tuple[Address, ...] | None
    answered_by: set[Address] = field(default_factory=set)
    is_completed: bool = False


@dataclass(slots=True)
class FakeService:
    """A service: who may answer, and how many answers complete a call."""

    operators: set[Address]
    required_results: int = 1
    is_active: bool = True
    calls: list[_Call] = field(default_factory=list)


@dataclass(slots=True)
class TangleState:
    """All services; copied at each block, so that blocks can be undone."""

    services: dict[int, FakeService] = field(default_factory=dict)

    def submit_job(
        self,
        service_id: int,
        job_index: int,
        inputs: bytes,
        *,
        caller: Address,
        quoted: Sequence[Address] | None,
    ) -> FakeLog:
        """Add a call and return its log."""
        service = self._open(service_id)
        call_id = len(service.calls)
        names = (_word(service_id), _word(call_id))
        if quoted is None:
            service.calls.append(_Call(job_index, caller, None))
            data = encode(["uint8", "address", "bytes"], [job_index, caller, inputs])
            return FakeLog((_SUBMITTED, *names), data)
        service.calls.append(_Call(job_index, caller, tuple(quoted)))
        types = ["uint8", "address", "address[]", "uint256", "bytes"]
        data = encode(types, [job_index, caller, list(quoted), 100, inputs])
        return FakeLog((_QUOTED, *names), data)

    def execute(self, sender: Address, data: bytes) -> list[FakeLog]:
        """Run ``submitResult`` or ``submitResults``.

        Raises:
            RevertedError: as the contract refuses; the caller drops this state then.
        """
        selector, arguments = data[:_SELECTOR_BYTES], data[_SELECTOR_BYTES:]
        if selector == FUNCTIONS["submitResult(uint64,uint64,bytes)"]:
            service_id, call_id, output = decode(["uint64", "uint64", "bytes"], arguments)
            return self._answer(sender, service_id, call_id, output)
        if selector == FUNCTIONS["submitResults(uint64,uint64[],bytes[])"]:
            service_id, call_ids, outputs = decode(["uint64", "uint64[]", "bytes[]"], arguments)
            logs: list[FakeLog] = []
            for call_id, output in zip(call_ids, outputs, strict=True):
                logs += self._answer(sender, service_id, call_id, output)
            return logs
        raise RevertedError(f"the fake contract has no function 0x{selector.hex()}")

    def read(self, data: bytes) -> bytes:
        """Answer a view function: ``getJobCall``, ``getServiceOperators`` or ``isServiceOperator``."""
        selector, arguments = data[:_SELECTOR_BYTES], data[_SELECTOR_BYTES:]
        if selector == FUNCTIONS["getJobCall(uint64,uint64)"]:
            call = self._call(*decode(["uint64", "uint64"], arguments))
            types = ["uint8", "address", "uint64", "uint32", "bool", "bool", "uint256"]
            is_quoted = call.quoted is not None
            counts = [0, len(call.answered_by), call.is_completed, is_quoted, 0]
            return encode(types, [call.job_index, call.caller, *counts])
        if selector == FUNCTIONS["getServiceOperators(uint64)"]:
            (service_id,) = decode(["uint64"], arguments)
            return encode(["address[]"], [sorted(self._open(service_id).operators)])
        if selector == FUNCTIONS["isServiceOperator(uint64,address)"]:
            service_id, operator = decode(["uint64", "address"], arguments)
            return encode(["bool"], [bytes.fromhex(operator[2:]) in self._open(service_id).operators])
        raise RevertedError(f"the fake contract has no view 0x{selector.hex()}")

    def is_view(self, data: bytes) -> bool:
        """Say whether call data only reads."""
        names = (
            "getJobCall(uint64,uint64)",
            "getServiceOperators(uint64)",
            "isServiceOperator(uint64,address)",
        )
        return data[:_SELECTOR_BYTES] in {FUNCTIONS[name] for name in names}

    def _answer(self, sender: Address, service_id: int, call_id: int, output: bytes) -> list[FakeLog]:
        service = self._open(service_id)
        call = self._call(service_id, call_id)
        if sender not in service.operators:
            raise revert("OperatorNotInService", service_id, sender)
        if call.is_completed:
            raise revert("JobAlreadyCompleted", service_id, call_id)
        if sender in call.answered_by:
            raise revert("ResultAlreadySubmitted", service_id, call_id, sender)
        if call.quoted is not None and sender not in call.quoted:
            raise revert("NotQuotedOperator", service_id, call_id)
        call.answered_by.add(sender)
        names = (_word(service_id), _word(call_id))
        logs = [FakeLog((_RESULT, *names, Hash(sender.rjust(32, b"\0"))), encode(["bytes"], [output]))]
        if len(call.answered_by) >= service.required_results:
            call.is_completed = True
            logs.append(FakeLog((_COMPLETED, *names), b""))
        return logs

    def _open(self, service_id: int) -> FakeService:
        service = self.services.get(service_id)
        if service is None or not service.is_active:
            raise revert("ServiceNotActive", service_id)
        return service

    def _call(self, service_id: int, call_id: int) -> _Call:
        calls = self._open(service_id).calls
        if call_id >= len(calls):
            raise revert("JobCallNotFound", service_id, call_id)
        return calls[call_id]


def revert(name: str, *arguments: object) -> RevertedError:
    """Return one of the contract's errors, as an end point reports it."""
    for selector, error in CUSTOM_ERRORS.items():
        if error.name == name:
            types = error.types
            cut = arguments[: len(types)]
            return decode_revert(selector + encode(types, cut))
    raise KeyError(name)


def _word(number: int) -> Hash:
    return Hash(number.to_bytes(32, "big"))
