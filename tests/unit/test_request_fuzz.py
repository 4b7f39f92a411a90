"""What comes over the request boundary is a well-formed request or a refusal, never another exception."""

import math
from dataclasses import fields, replace

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blueprint.errors import InputsInvalidError, InputsUndecodableError, UnencodableError
from jobs.execute import to_execution_request
from jobs.execute_codec import (
    ChainDependency,
    ChainFile,
    ChainLimits,
    ChainPair,
    ExecuteRequest,
    decode_request,
    decode_result,
    encode_request,
)
from sandbox import wellformed
from sandbox.bounds import StageBounds
from sandbox.errors import RequestError
from sandbox.request import Dependency, ExecutionRequest, Limits, SourceFile

QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Text with what makes trouble: lone surrogates, NUL, newlines, dots and slashes, and long runs of them.
TROUBLE = st.sampled_from(
    ["", ".", "..", "/", "a", "\0", "\n", "\ud800", "é", "-", "--x=y", "~", "\u202e", "x" * 300, "a/" * 600]
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(), max_size=20),
    st.lists(TROUBLE, max_size=6).map("".join),
    st.lists(TROUBLE, max_size=6).map("/".join),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
    st.sampled_from([0, -1, 1, 10**30, 10**400, -(10**400), math.nan, math.inf, -math.inf, 5e-324, 1e308]),
)
PATHS = st.one_of(TEXTS, st.sampled_from(["main.py", "a.py", "a.py/b", "lib/a.py", "../a", "/etc/passwd"]))
CONTENTS = st.one_of(st.binary(max_size=50), st.sampled_from([b"print(1)", b"\0", b""]))


def refused(make: object, *arguments: object, **values: object) -> object:
    """Return what ``make`` returns, or None where it refuses; any other exception is a finding."""
    try:
        return make(*arguments, **values)  # type: ignore[operator]
    except RequestError as exc:
        message = str(exc)
    assert message
    assert len(message) < 2000
    return None


@QUICK
@given(st.dictionaries(st.sampled_from([each.name for each in fields(Limits)]), NUMBERS))
@example({"memory_bytes": 10**400})
@example({"processes": 1.5})
def test_limits_are_positive_and_finite_or_refused(values: dict[str, float]) -> None:
    """NaN, infinities, truth values, fractions of a byte and numbers beyond any float are told apart."""
    limits = refused(Limits, **values)
    if limits is None:
        return
    for each in fields(Limits):
        value = getattr(limits, each.name)
        assert value > 0
        assert not isinstance(value, bool)
        assert isinstance(value, int) or math.isfinite(value)
        assert isinstance(value, int) or isinstance(each.default, float)


@QUICK
@given(NUMBERS, st.dictionaries(st.sampled_from([each.name for each in fields(Limits)]), NUMBERS))
@example(10**400, {})
@example(math.nan, {})
def test_bounds_in_force_are_never_above_the_operators(timeout_s: float, values: dict[str, float]) -> None:
    """What is asked for lowers a bound or does nothing."""
    limits = refused(Limits, **values)
    main = SourceFile(path="main.py", content=b"1")
    request = refused(ExecutionRequest, language="python", files=[main], timeout_s=timeout_s, limits=limits)
    bounds = StageBounds()
    lowered = refused(bounds.lowered, request) if request is not None else None
    if lowered is not None:
        for each in fields(Limits):
            assert 0 < getattr(lowered.run, each.name) <= getattr(bounds.run, each.name)  # type: ignore[attr-defined]


@QUICK
@given(
    files=st.lists(st.tuples(PATHS, CONTENTS), max_size=5),
    texts=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["language", "runtime", "entry_point", "network"], TEXTS)
    ),
    args=st.lists(TEXTS, max_size=4),
    env_vars=st.dictionaries(TEXTS, TEXTS, max_size=4),
    options=st.dictionaries(TEXTS, TEXTS, max_size=4),
    outputs=st.lists(PATHS, max_size=4),
    dependencies=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=3),
)
def test_request_that_exists_is_well_formed(
    *,
    files: list[tuple[str, bytes]],
    texts: dict[str, str],
    args: list[str],
    env_vars: dict[str, str],
    options: dict[str, str],
    outputs: list[str],
    dependencies: list[tuple[str, str, str]],
) -> None:
    """Every text that got through can be a path, an argument or a variable of a program."""

    def build() -> ExecutionRequest:
        return ExecutionRequest(
            **{"language": "python", **texts},  # type: ignore[arg-type]
            files=[SourceFile(path=path, content=content) for path, content in files],
            args=args,
            env_vars=env_vars,
            options=options,
            outputs=outputs,
            dependencies=[Dependency(name=n, requirement=r, source=s) for n, r, s in dependencies],
        )

    request = refused(build)
    if not isinstance(request, ExecutionRequest):
        return
    paths = [*(file.path for file in request.files), *request.outputs]
    for path in paths:
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))
        assert len(path.encode()) <= wellformed.MAX_PATH_BYTES
    assert len({file.path for file in request.files}) == len(request.files)
    for text in (*paths, *request.args, *request.env_vars, *request.env_vars.values()):
        assert "\0" not in text
        text.encode()
    assert not any("=" in name for name in request.env_vars)
    for each in request.dependencies:
        assert not each.name.startswith(("-", "/", "."))
        assert not each.requirement.startswith("-")
        assert "\n" not in each.name + each.requirement + each.source


def decoded(data: bytes) -> ExecutionRequest | None:
    """Take bytes all the way that a call's inputs go; None where they are refused."""
    try:
        return to_execution_request(decode_request(data), Limits())
    except (InputsUndecodableError, InputsInvalidError):
        return None


GOOD = ExecuteRequest(
    language="python",
    files=(ChainFile("main.py", b"print(1)"), ChainFile("data/x", b"\0" * 40)),
    entry_point="main.py",
    stdin=b"in",
    args=("a", "b"),
    dependencies=(ChainDependency("numpy", ">=2"),),
    env_vars=(ChainPair("A", "b"),),
    limits=ChainLimits(timeout_ms=1000, processes=3),
)
ENCODED = encode_request(GOOD)


@QUICK
@given(st.binary(max_size=600))
@example(b"")
@example(bytes(31))
@example(b"\xff" * 64)
@example((32).to_bytes(32, "big") + (1).to_bytes(32, "big"))
@example((96).to_bytes(32, "big") + b"\xff" * 96)
def test_any_bytes_are_a_request_or_a_refusal(data: bytes) -> None:
    """Bytes that nobody encoded are refused by name."""
    decoded(data)


@settings(QUICK, max_examples=120)
@given(st.lists(st.tuples(st.integers(0, len(ENCODED) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_request_with_changed_bytes_is_a_request_or_a_refusal(changes: list[tuple[int, int]]) -> None:
    """Offsets, lengths, padding and text that were tampered with lead nowhere."""
    data = bytearray(ENCODED)
    for place, value in changes:
        data[place] = value
    decoded(bytes(data))


@settings(QUICK, max_examples=120)
@given(
    st.integers(0, len(ENCODED) // 32 - 1),
    st.sampled_from([0, 1, 31, 32, 2**32, 2**64 - 1, 2**255, 2**256 - 1]),
)
def test_a_request_with_a_changed_word_is_a_request_or_a_refusal(place: int, word: int) -> None:
    """The largest offsets, lengths and counts make nothing large."""
    data = bytearray(ENCODED)
    data[32 * place : 32 * (place + 1)] = word.to_bytes(32, "big")
    decoded(bytes(data))


@QUICK
@given(st.integers(0, len(ENCODED)), st.binary(max_size=64))
def test_a_request_that_is_cut_or_lengthened_is_refused(length: int, more: bytes) -> None:
    """There is one encoding of a request: nothing may be missing, nothing may follow."""
    data = ENCODED[:length] + more
    if data != ENCODED:
        assert decoded(data) is None


@QUICK
@given(
    language=TEXTS,
    files=st.lists(st.tuples(PATHS, CONTENTS), max_size=4),
    pairs=st.lists(st.tuples(TEXTS, TEXTS), max_size=4),
    dependencies=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=3),
    limits=st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3),
)
def test_any_encodable_request_is_taken_or_refused(
    *,
    language: str,
    files: list[tuple[str, bytes]],
    pairs: list[tuple[str, str]],
    dependencies: list[tuple[str, str, str]],
    limits: list[int],
) -> None:
    """What Solidity can encode comes through as it was, or is refused; keys never come twice."""
    request = replace(
        GOOD,
        language=language,
        files=tuple(ChainFile(path, content) for path, content in files),
        env_vars=tuple(ChainPair(*pair) for pair in pairs),
        dependencies=tuple(ChainDependency(*each) for each in dependencies),
        limits=ChainLimits(timeout_ms=limits[0], memory_bytes=limits[1], disk_bytes=limits[2]),
    )
    try:
        data = encode_request(request)
    except UnencodableError:
        return  # a lone surrogate: the ABI has no such text
    assert decode_request(data) == request
    taken = decoded(data)
    if taken is not None:
        assert len(taken.env_vars) == len(pairs)
        assert taken.limits is None or taken.limits.memory_bytes <= Limits().memory_bytes


@QUICK
@given(st.binary(max_size=400))
def test_any_bytes_are_a_result_or_a_refusal(data: bytes) -> None:
    """Who reads a result from a chain is never surprised either."""
    try:
        decode_result(data)
    except InputsUndecodableError:
        return
