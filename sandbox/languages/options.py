"""Reads the options of a request against what a language knows.

Invariant: an option that a language does not know, or a value that it does not accept, is refused by name;
nothing that was asked for is silently ignored.
"""

import difflib
from collections.abc import Mapping, Sequence

from sandbox.errors import RequestError
from sandbox.request import ExecutionRequest

__all__ = ["SWITCH", "read_options"]

SWITCH = ("true", "false")
"""The values of an option that is on or off."""


def read_options(request: ExecutionRequest, known: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return a value for every known option: the request's, or the first that the language lists.

    Args:
        request: the program.
        known: option name to its accepted values, the default first.

    Raises:
        RequestError: an option or its value is unknown.
    """
    for name, value in request.options.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            expected = f"one of {', '.join(sorted(known))}" if known else "no options"
            raise RequestError(f"options: {request.language} expects {expected}, received {name!r}{hint}")
        if value not in known[name]:
            raise RequestError(
                f"options: {name} of {request.language} is one of "
                f"{', '.join(known[name])}, received {value!r}"
            )
    return {name: request.options.get(name, values[0]) for name, values in known.items()}
