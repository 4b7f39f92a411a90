"""What an image reference may look like, and whether it says exactly what runs.

Invariant: an image without a digest is what its registry makes of it; without a tag as well it is refused.
Source of the rule: the OCI distribution specification, and Docker's reference grammar.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from jobs.deploy.compose.document import Part
from jobs.deploy.compose.findings import Allowance, Finding

__all__ = ["check_image"]

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])"
_IMAGE = re.compile(
    rf"(?:{_HOST}(?::\d{{1,5}})?/)?{_PART}(?:/{_PART})*(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
    r"(?P<digest>@sha256:[0-9a-f]{64})?"
)
MAX_LENGTH = 512


def check_image(part: Part) -> Iterator[Finding]:
    """Yield what is wrong with a service's ``image``."""
    if "$" in part.text:
        yield part.finding("an image is measured, so it cannot come from a variable")
        return
    match = _IMAGE.fullmatch(part.text) if len(part.text) <= MAX_LENGTH else None
    if match is None:
        yield part.finding(f"{part.text[:80]!r} is no image: expected name:tag or name@sha256:digest")
    elif match["digest"]:
        return
    elif match["tag"]:
        finding = part.finding(f"{part.text} is named by its tag, which can be moved to another image")
        yield replace(finding, allowance=Allowance.TAG)
    else:
        yield part.finding(f"{part.text} has neither tag nor digest; append @sha256:… or :tag")
