"""A handler's signature, read once when it is registered.

Invariant: a `Signature` that exists can be carried by at least one of the two encodings.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias, get_args, get_origin

from blueprint.errors import RegistrationError
from blueprint.extract.annotations import Binding, bind_type, resolve_hints
from blueprint.types import JobCall

__all__ = ["RawResult", "Signature", "TypedFunction", "read_signature"]

TypedFunction = Callable[..., Awaitable[object]]
"""An async function with annotated parameters; which ones, only its signature says."""


@dataclass(frozen=True, slots=True)
class _Raw:
    """Marks bytes that are already the encoding of a result."""


RawResult: TypeAlias = Annotated[bytes, _Raw()]
"""Return annotation of a handler that encodes its result itself; served only where no schema is declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a handler takes and gives."""

    function: TypedFunction
    parameters: tuple[Binding, ...]
    """The inputs, in order; the parameters annotated `JobCall` are not among them."""
    names: tuple[str, ...]
    """All parameters, in order, by which the function is called."""
    call_names: frozenset[str]
    """Those that get the job call itself."""
    result: Binding | None
    """None for a handler that encodes its result itself (`RawResult`)."""

    @property
    def reads_call_only(self) -> bool:
        """True when the handler takes the call and nothing decoded: its inputs are its own business."""
        return bool(self.call_names) and not self.parameters

    def invoke(self, call: JobCall, values: Sequence[object]) -> Awaitable[object]:
        """Call the function with decoded inputs, in order, and the call where it is asked for."""
        given = iter(values)
        return self.function(**{n: call if n in self.call_names else next(given) for n in self.names})


def read_signature(function: TypedFunction, *, name: str) -> Signature:
    """Read what an async function takes and gives; ``name`` is the job's, for the message of an error.

    Raises:
        RegistrationError: it is not async, an annotation is missing or of an unsupported type, or a
        parameter is
            of a kind that has no place in inputs (``*args``, positional-only, with a default).
    """
    where = f"job {name!r}"
    if not inspect.iscoroutinefunction(function):
        raise RegistrationError(f"{where}: the handler must be an async function; write `async def`")
    hints = resolve_hints(function, where)
    parameters, call_names = [], set()
    names = list(inspect.signature(function).parameters)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise RegistrationError(
                f"{where}: parameter {parameter} cannot be filled from inputs; give it a name"
            )
        if parameter.default is not parameter.empty:
            raise RegistrationError(
                f"{where}: parameter {parameter.name!r} has a default, but inputs carry every parameter; "
                "annotate T | None where a caller may leave it out"
            )
        if parameter.name not in hints:
            raise RegistrationError(f"{where}: parameter {parameter.name!r} has no annotation")
        if hints[parameter.name] is JobCall:
            call_names.add(parameter.name)
        else:
            binding = bind_type(hints[parameter.name], f"{where}, parameter {parameter.name!r}")
            parameters.append(binding.renamed(parameter.name))
    if "return" not in hints:
        raise RegistrationError(f"{where}: the return annotation is missing; write `-> None` for no result")
    return Signature(
        function=function,
        parameters=tuple(parameters),
        names=tuple(names),
        call_names=frozenset(call_names),
        result=_result(hints["return"], where),
    )


def _result(annotation: object, where: str) -> Binding | None:
    if get_origin(annotation) is Annotated and any(isinstance(mark, _Raw) for mark in get_args(annotation)):
        return None
    return bind_type(annotation, f"{where}, result").renamed("result")
