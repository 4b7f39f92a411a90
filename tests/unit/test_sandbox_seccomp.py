"""The filter's verdicts, by interpreting the compiled program as the kernel would."""

import errno
import struct
from functools import cache

import pytest

from sandbox.kernel.seccomp import DENIED, JUMP_EQUAL, RETURN, Program, compile_filter
from sandbox.kernel.syscall_numbers import AUDIT_ARCH, NUMBERS, X32_BIT

ALLOW, KILL, ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
MASK = 0xFFFF_FFFF


@cache
def instructions(machine: str) -> list[tuple[int, ...]]:
    """Return the compiled filter, decoded."""
    return list(struct.iter_unpack("<HBBI", compile_filter(machine)))


def verdict(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Run the filter over one call; classic BPF with the five instructions that the compiler emits."""
    program = instructions(machine)
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch or AUDIT_ARCH[machine], 0, *padded)
    place = accumulator = 0
    while True:
        code, yes, no, value = program[place]
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x15:
            place += yes if accumulator == value else no
        elif code == 0x35:
            place += yes if accumulator >= value else no
        elif code == 0x05:
            place += value
        else:
            assert code == 0x06
            return int(value)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_listed_call_is_denied(machine: str) -> None:
    """Each name of the deny list that the architecture has gets EPERM."""
    numbers = NUMBERS[machine]
    listed = {name for group in DENIED.values() for name in group if name in numbers}
    assert {name: verdict(machine, numbers[name]) for name in listed} == dict.fromkeys(
        listed, ERRNO | errno.EPERM
    )


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_other_number_is_allowed(machine: str) -> None:
    """No call between the listed ones is hit by accident."""
    special = set(NUMBERS[machine].values())
    others = [number for number in range(480) if number not in special]
    assert {verdict(machine, number) for number in others} == {ALLOW}


def test_clone3_is_absent_so_that_libraries_fall_back() -> None:
    """clone3 gets ENOSYS, which a C library takes for an old kernel."""
    assert verdict("x86_64", 435) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("bit", range(25, 31))
def test_clone_with_a_namespace_flag_is_denied(bit: int) -> None:
    """Each CLONE_NEW flag is denied (CLONE_NEWNS apart), alone and beside others."""
    assert verdict("x86_64", 56, 1 << bit) == ERRNO | errno.EPERM
    assert verdict("x86_64", 56, 1 << bit | 17 | 0x100) == ERRNO | errno.EPERM


def test_clone_of_threads_and_processes_passes() -> None:
    """The flags of fork, vfork and pthread_create pass; CLONE_NEWNS does not."""
    for flags in (17, 0x4111, 0x3D0F00, 0x1200011):
        assert verdict("x86_64", 56, flags) == ALLOW
    assert verdict("x86_64", 56, 0x20000 | 17) == ERRNO | errno.EPERM


def test_only_unix_sockets_pass() -> None:
    """Every other family is answered as if the kernel did not know it."""
    assert verdict("x86_64", 41, 1, 1, 0) == ALLOW
    assert {verdict("x86_64", 41, family, 1, 0) for family in range(2, 46)} == {ERRNO | errno.EAFNOSUPPORT}


def test_terminal_requests_are_judged_by_their_low_word() -> None:
    """The kernel ignores the high half of an ioctl request; so does the filter."""
    assert verdict("x86_64", 16, 0, 0x5412) == ERRNO | errno.EPERM
    assert verdict("x86_64", 16, 0, 0x1_0000_541C) == ERRNO | errno.EPERM
    assert verdict("x86_64", 16, 0, 0x5401) == ALLOW


def test_personality_is_asked_but_not_changed() -> None:
    """Asking, the usual one and no randomisation pass; READ_IMPLIES_EXEC does not."""
    assert {verdict("x86_64", 135, value) for value in (0, 0x40000, 0xFFFFFFFF)} == {ALLOW}
    assert verdict("x86_64", 135, 0x400000) == ERRNO | errno.EPERM


@pytest.mark.parametrize(("machine", "numbers"), [("x86_64", (9, 319, 29)), ("aarch64", (222, 279, 194))])
def test_huge_pages_are_not_to_be_had(machine: str, numbers: tuple[int, int, int]) -> None:
    """Maps, files and segments of pages that no memory group counts get ENOMEM; all others pass."""
    mmap, memfd_create, shmget = numbers
    for number, usual, huge in (
        (mmap, (0, 4096, 3, 0x22, -1 & MASK, 0), (0, 4096, 3, 0x22 | 0x40000 | 21 << 26, -1 & MASK, 0)),
        (memfd_create, (0, 3), (0, 4 | 21 << 26)),
        (shmget, (0, 4096, 0o1600), (0, 4096, 0o1600 | 0o4000)),
    ):
        assert verdict(machine, number, *usual) == ALLOW
        assert verdict(machine, number, *huge) == ERRNO | errno.ENOMEM


@pytest.mark.parametrize(
    ("machine", "advise", "flush"), [("x86_64", 221, (162, 306)), ("aarch64", 223, (81, 267))]
)
def test_calls_that_reach_the_cache(machine: str, advise: int, flush: tuple[int, int]) -> None:
    """Flushing and forgetting the machine's files are done in name only; nobody sees the cache."""
    assert [verdict(machine, number) for number in flush] == [ERRNO, ERRNO]
    assert [verdict(machine, advise, 3, 0, 0, advice) for advice in range(6)] == [
        *[ALLOW] * 4,
        ERRNO,
        ALLOW,
    ]
    assert verdict(machine, 451) == ERRNO | errno.ENOSYS


def test_other_tables_do_not_run() -> None:
    """An i386 call kills the process; an x32 number does not exist."""
    assert verdict("x86_64", 20, arch=0x4000_0003) == KILL
    assert verdict("x86_64", X32_BIT | 39) == ERRNO | errno.ENOSYS


def test_unknown_architecture_is_refused() -> None:
    """Without a table there is no filter, and that is an error."""
    with pytest.raises(NotImplementedError, match="riscv64"):
        compile_filter("riscv64")


def test_jump_that_does_not_fit_is_an_error() -> None:
    """A conditional jump over more than 255 instructions cannot be assembled."""
    program = Program()
    program.emit(JUMP_EQUAL, 1, yes="far")
    for _ in range(256):
        program.emit(RETURN, 0)
    program.label("far")
    with pytest.raises(ValueError, match="does not fit"):
        program.assemble()
