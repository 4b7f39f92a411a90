"""A job contract that also emits whatever it is told: LocalTangle behind a proxy with a mouth of its own.

The node follows one address; only that address can put a malformed event before it.
"""

from collections.abc import Sequence

__all__ = ["garbage_call", "two_faced"]

_SELECTOR = bytes.fromhex("ffffffff")
_TOPICS_AT = 5
_DATA_AT = _TOPICS_AT + 4 * 32


def _log(topics: int) -> bytes:
    """Code that emits a log with so many topics and with the data, both taken from the call data."""
    data = f"60{_DATA_AT:02x}3603"  # size of what follows the topics
    pushed = "".join(f"60{_TOPICS_AT + 32 * at:02x}35" for at in reversed(range(topics)))
    return bytes.fromhex(f"5b{data}60{_DATA_AT:02x}5f37{pushed}{data}5fa{topics}00")


def _runtime(implementation: bytes) -> tuple[bytes, list[int]]:
    """The contract's code, and where in it the logs with 0 to 4 topics begin."""
    parts = [
        "5f3560e01c63ffffffff146000",  # is it the selector below? (the last byte is set below)
        "57",  # then go there
        f"365f5f375f5f365f73{implementation.hex()}5af4",  # else let the implementation do it, here
        "3d5f5f3e6000573d5ffd",  # pass its answer on, as a revert
        "5b3d5ff3",  # or as a success
        "5b6004355f1a56",  # go to where the byte after the selector points
    ]
    code = bytearray(bytes.fromhex("".join(parts)))
    success = len(bytes.fromhex("".join(parts[:4])))
    code[12] = len(bytes.fromhex("".join(parts[:5])))
    code[success - 5] = success
    starts = []
    for topics in range(5):
        starts.append(len(code))
        code += _log(topics)
    return bytes(code), starts


def two_faced(implementation: bytes) -> bytes:
    """Return the creation code of the contract, in front of a deployed LocalTangle."""
    runtime, _ = _runtime(implementation)
    head = bytes.fromhex(f"61{len(runtime):04x}80600a5f395ff3")
    assert len(head) == 10, "the head copies what follows its ten bytes"
    return head + runtime


def garbage_call(topics: Sequence[bytes], data: bytes) -> bytes:
    """Return the call that makes the contract emit a log; topics are 32 bytes each, at most four."""
    _, starts = _runtime(bytes(20))
    padded = b"".join(topics).ljust(4 * 32, b"\0")
    return _SELECTOR + bytes([starts[len(topics)]]) + padded + data
