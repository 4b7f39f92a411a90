"""Decides whether a compose file may be deployed: its form, its risks, and the variables that it refers to.

Invariant: an accepted text refers to exactly the variables that are sealed for it, and to nothing that the
guest does not have; the text itself is never changed, for it is measured.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from jobs.deploy.app_compose import MAX_SCRIPTS_BYTES
from jobs.deploy.compose.document import Part, read_document
from jobs.deploy.compose.findings import Allowance, ComposeError, Finding
from jobs.deploy.compose.ports import Ports
from jobs.deploy.compose.references import ReferenceSyntaxError, references_in
from jobs.deploy.compose.services import check_service, needed_services
from jobs.deploy.compose.shapes import misshapen
from jobs.deploy.compose.specification import TOP
from jobs.deploy.compose.volumes import check_volume

__all__ = ["Compose", "check_compose"]

_GIVEN = frozenset({"COMPOSE_PROJECT_NAME"})
"""Variables that compose itself provides."""
_MOST_FINDINGS = 500


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
        ComposeError: with all that is wrong, or with the first 500 of it.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_SCRIPTS_BYTES:
        message = f"{size} bytes; at most {MAX_SCRIPTS_BYTES} are accepted"
        raise ComposeError((Finding(line=0, path="", message=message),))
    root = read_document(text)
    wrong, allowed = [], set()
    for finding in chain(_check_form(root), _check_variables(root, frozenset(names), script)):
        if finding.allowance is None or finding.allowance not in allow:
            wrong.append(finding)
        else:
            allowed.add(finding.allowance)
        # SECURITY: a stranger's text of nothing but faults would hold up whoever reads it
        # (test_a_text_of_nothing_but_faults_is_not_read_to_its_end).
        if len(wrong) == _MOST_FINDINGS:
            break
    if wrong:
        raise ComposeError(tuple(sorted(wrong, key=lambda finding: (finding.line, finding.path))))
    services = _entries(root, "services")
    return Compose(
        text=text,
        services=tuple(services),
        images=tuple((part.entries or {})["image"].text for part in services.values()),
        volumes=tuple(_entries(root, "volumes")),
        one_shots=tuple(sorted(_one_shots(services))),
        allowed=frozenset(allowed),
    )


def _check_form(root: Part) -> Iterator[Finding]:
    yield from misshapen(root, TOP)
    services = _entries(root, "services")
    if not services:
        yield root.finding("there are no services")
    ports = Ports()
    for name, part in services.items():
        yield from check_service(name, part, root, ports)
    yield from _check_cycles(services)
    for part in _entries(root, "volumes").values():
        yield from check_volume(part)
    for part in _entries(root, "networks").values():
        yield from _check_network(part)
    for kind, keys in (("secrets", {"environment"}), ("configs", {"environment", "content"})):
        for part in _entries(root, kind).values():
            if len((part.entries or {}).keys() & keys) != 1:
                yield part.finding(f"expected one of {', '.join(sorted(keys))}")


def _check_network(part: Part) -> Iterator[Finding]:
    entries = part.entries or {}
    if "external" in entries and entries["external"].is_true:
        yield entries["external"].finding("a new guest has no networks from elsewhere: let this file make it")
    if "driver_opts" in entries:
        finding = entries["driver_opts"].finding("options of a driver can join a network of the guest")
        yield replace(finding, allowance=Allowance.HOST_NETWORK)


def _check_cycles(services: Mapping[str, Part]) -> Iterator[Finding]:
    needs = {
        name: {other for other, _ in needed_services(part)} & services.keys()
        for name, part in services.items()
    }
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
    for name in sorted(names):
        if name.startswith(("COMPOSE_", "DOCKER_")):
            yield Finding(line=0, path="", message=f"{name} would steer compose itself: choose another name")
    for part, name, is_needed in _references(root):
        if isinstance(is_needed, str):
            yield part.finding(is_needed)
        elif name in names:
            used.add(name)
        elif is_needed and name not in _GIVEN:
            yield part.finding(f"nothing provides {name}: seal it, or give a default as in ${{{name}:-…}}")
    for name in sorted(names - used):
        yield Finding(line=0, path="", message=f"no service uses {name}: add ${{{name}}} where it is wanted")


def _references(root: Part) -> Iterator[tuple[Part, str, bool | str]]:
    """Yield where a variable is referred to, its name, and whether it is needed, or what is wrong."""
    for part in root.values():
        try:
            for reference in references_in(part.text):
                yield part, reference.name, reference.is_needed
        except ReferenceSyntaxError as error:
            yield part, "", str(error)
    for part, name in _passed_on(root):
        yield part, name, True


def _passed_on(root: Part) -> Iterator[tuple[Part, str]]:
    """Yield the variables that are named without a value, to be taken as they are."""
    for service in _entries(root, "services").values():
        environment = (service.entries or {}).get("environment")
        if environment is None:
            continue
        for item in environment.items or ():
            if item.kind is str and "=" not in item.text:
                yield item, item.text
        for name, entry in (environment.entries or {}).items():
            if entry.kind is type(None):
                yield entry, name
    for kind in ("secrets", "configs"):
        for part in _entries(root, kind).values():
            source = (part.entries or {}).get("environment")
            if source is not None and source.text:
                yield source, source.text


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
