"""Decides whether a compose file may be deployed: its form, its risks, and the variables that it refers to.

Invariant: an accepted text refers to exactly the variables that are sealed for it, and to nothing that the
guest does not have; the text itself is never changed, for it is measured.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from jobs.deploy.app_compose import MAX_SCRIPTS_BYTES
from jobs.deploy.compose.document import Part, read_document
from jobs.deploy.compose.findings import Allowance, ComposeError, Finding
from jobs.deploy.compose.ports import Ports
from jobs.deploy.compose.references import ReferenceSyntaxError, references_in
from jobs.deploy.compose.services import check_keys, check_service, needed_services
from jobs.deploy.compose.volumes import check_volume

__all__ = ["Compose", "check_compose"]

_TOP = frozenset({"version", "name", "services", "volumes", "networks", "secrets", "configs"})
_GIVEN = frozenset({"COMPOSE_PROJECT_NAME"})
"""Variables that compose itself provides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compose:
    """A compose file that was accepted."""

    text: str
    """As it came, byte for byte."""
    services: tuple[str, ...]
    images: tuple[str, ...]
    volumes: tuple[str, ...]
    """The named ones: what of the application's data outlives an update."""
    one_shots: tuple[str, ...]
    """Services that others wait for to end."""
    allowed: frozenset[Allowance]
    """The risks that the text takes, all of which were allowed."""


def check_compose(
    text: str, *, names: Collection[str] = (), allow: Collection[Allowance] = (), script: str = ""
) -> Compose:
    """Return what a compose text says.

    Args:
        text: YAML, as its author wrote it.
        names: of the variables that are sealed for it.
        allow: the risks that may be taken.
        script: a pre-launch script; a variable that only it uses counts as used.

    Raises:
        ComposeError: with all that is wrong.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_SCRIPTS_BYTES:
        message = f"{size} bytes; at most {MAX_SCRIPTS_BYTES} are accepted"
        raise ComposeError((Finding(line=0, path="", message=message),))
    root = read_document(text)
    found = [*_check_form(root), *_check_variables(root, frozenset(names), script)]
    wrong = [finding for finding in found if finding.allowance is None or finding.allowance not in allow]
    if wrong:
        raise ComposeError(tuple(sorted(wrong, key=lambda finding: (finding.line, finding.path))))
    services = _entries(root, "services")
    return Compose(
        text=text,
        services=tuple(services),
        images=tuple((part.entries or {})["image"].text for part in services.values()),
        volumes=tuple(_entries(root, "volumes")),
        one_shots=tuple(sorted(_one_shots(services))),
        allowed=frozenset(finding.allowance for finding in found if finding.allowance is not None),
    )


def _check_form(root: Part) -> Iterator[Finding]:
    yield from check_keys(root, _TOP, "a compose file")
    for key in ("services", "volumes", "networks", "secrets", "configs"):
        part = (root.entries or {}).get(key)
        if part is not None and part.entries is None and (part.kind is not type(None) or key == "services"):
            yield part.finding(f"expected a mapping, received {part.word}")
    services = _entries(root, "services")
    if not services:
        yield root.finding("there are no services")
    ports = Ports()
    for name, part in services.items():
        yield from check_service(name, part, root, ports)
    yield from _check_cycles(services)
    for part in _entries(root, "volumes").values():
        yield from check_volume(part)
    for kind in ("secrets", "configs"):
        for part in _entries(root, kind).values():
            yield from _check_source(part)
    for part in _entries(root, "networks").values():
        external = (part.entries or {}).get("external")
        if external is not None and external.is_true:
            yield external.finding("a new guest has no networks from elsewhere: let this file make it")


def _check_source(part: Part) -> Iterator[Finding]:
    """A secret or configuration comes from a sealed variable or the text: the guest has no file of ours."""
    entries = part.entries or {}
    for key in ("file", "external"):
        if key in entries:
            yield entries[key].finding("the guest has no such file or store: take it from `environment`")
    if not entries.keys() & {"file", "external", "environment", "content"}:
        yield part.finding("expected environment: NAME")


def _check_cycles(services: Mapping[str, Part]) -> Iterator[Finding]:
    needs = {name: set(needed_services(part)) & services.keys() for name, part in services.items()}
    while ready := [name for name, others in needs.items() if not others]:
        for name in ready:
            del needs[name]
        for others in needs.values():
            others.difference_update(ready)
    if needs:
        first = min(needs, key=lambda name: services[name].line)
        yield services[first].finding(
            f"services wait for one another in a circle: {', '.join(sorted(needs))}"
        )


def _check_variables(root: Part, names: frozenset[str], script: str) -> Iterator[Finding]:
    used = {name for name in names if name in script}
    for part in root.values():
        for name, is_needed, wrong in _references(part):
            if wrong:
                yield part.finding(wrong)
            elif name in names:
                used.add(name)
            elif is_needed and name not in _GIVEN:
                yield part.finding(
                    f"nothing provides {name}: seal it, or give a default as in ${{{name}:-…}}"
                )
    for name in sorted(names - used):
        yield Finding(line=0, path="", message=f"no service uses {name}: add ${{{name}}} where it is wanted")


def _references(part: Part) -> Iterator[tuple[str, bool, str]]:
    """Yield name, need and error of the references in one value, those that pass a variable on among them."""
    keys = part.path.rsplit(".", 2)
    is_passed = (
        part.path.startswith("services.")
        and (
            part.path.rpartition("[")[0].endswith(".environment")
            and part.kind is str
            and "=" not in part.text
        )
    ) or (len(keys) == 3 and keys[1] == "environment" and part.kind is type(None))  # noqa: PLR2004 - key and its parent
    if is_passed:
        yield part.text if part.kind is str else keys[2], True, ""
        return
    if part.path.startswith("secrets.") and part.path.endswith(".environment"):
        yield part.text, True, ""
        return
    try:
        for reference in references_in(part.text):
            yield reference.name, reference.is_needed, ""
    except ReferenceSyntaxError as error:
        yield "", True, str(error)


def _one_shots(services: Mapping[str, Part]) -> Iterator[str]:
    for part in services.values():
        needs = (part.entries or {}).get("depends_on")
        for name, entry in ((needs.entries or {}) if needs is not None else {}).items():
            condition = (entry.entries or {}).get("condition")
            if condition is not None and condition.text == "service_completed_successfully":
                yield name


def _entries(root: Part, key: str) -> Mapping[str, Part]:
    part = (root.entries or {}).get(key)
    return (part.entries or {}) if part is not None else {}
