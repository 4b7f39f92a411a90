"""What a deployment would change, before anything is sent.

Invariant: a plan is made of what is wanted and what was recorded alone; it names variables, never a value.
"""

import difflib
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from blueprint.foreign_json import JsonValue
from blueprint.tee.event_log import Event
from blueprint.tee.verify import configuration_id
from jobs.deploy.app_compose import parse_app_compose
from jobs.deploy.backends.backend import Placement
from jobs.deploy.placement import check_change, resized
from jobs.deploy.record import DeploymentRecord, Stage
from jobs.deploy.wanted import Variables, Wanted, is_same

__all__ = ["Change", "Plan", "make_plan"]

_TEXTS = ("docker_compose_file", "pre_launch_script")
"""Members of many lines."""
_NAMES = "allowed_envs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One member that would be another."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would happen."""

    name: str
    place: str
    is_new: bool
    compose_hash: str
    """Of what is wanted, in hexadecimal digits: what its attestation must show."""
    app_id: str = ""
    """Empty until the place has given one."""
    old_compose_hash: str = ""
    compose_diff: str = ""
    """Unified, of compose text and script, with what is not printable escaped; empty where both stay."""
    changes: tuple[Change, ...] = ()
    """Of other measured members, and of resources."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Names of variables."""
    replaces_variables: bool = False
    """All values are sent anew: an update never merges."""
    warnings: tuple[str, ...] = ()

    @property
    def is_noop(self) -> bool:
        """Whether nothing would be sent that changes anything."""
        return not (
            self.is_new
            or self.compose_hash != self.old_compose_hash
            or self.changes
            or self.replaces_variables
        )

    @property
    def expected(self) -> dict[str, str]:
        """What a quote must show, in hexadecimal digits; of boot events the digests in their first form."""
        compose_hash = bytes.fromhex(self.compose_hash)
        events = [Event(name="compose-hash", payload=compose_hash)]
        if self.app_id:
            events.append(Event(name="app-id", payload=bytes.fromhex(self.app_id)))
        digests = {f"event {event.name}": event.digest.hex() for event in events}
        return digests | {"MRCONFIGID, where it is set": configuration_id(compose_hash).hex()}

    def to_json(self) -> dict[str, object]:
        """Return the plan's members."""
        return asdict(self) | {"is_noop": self.is_noop, "expected": self.expected}

    def lines(self) -> Iterator[str]:
        """Yield the plan for people."""
        if self.is_noop:
            yield f"{self.name} at {self.place}: nothing changes"
            return
        yield f"{self.name} at {self.place}: {'create' if self.is_new else 'change'}"
        if self.old_compose_hash and self.old_compose_hash != self.compose_hash:
            yield f"  compose hash {self.old_compose_hash} -> {self.compose_hash}"
        else:
            yield f"  compose hash {self.compose_hash}"
        yield f"  app id {self.app_id or 'not known before it is prepared'}"
        yield from (f"  expected {name}: {value}" for name, value in self.expected.items())
        for change in self.changes:
            yield f"  {change.name}: {change.before} -> {change.after}"
        for sign, names in (("+", self.added), ("-", self.removed), ("=", self.kept)):
            for name in names:
                yield f"  variable {sign} {name}"
        yield from (f"  warning: {warning}" for warning in self.warnings)
        yield from self.compose_diff.split("\n") if self.compose_diff else ()


def make_plan(
    wanted: Wanted,
    record: DeploymentRecord | None,
    variables: Variables | None = None,
    *,
    place: str,
    old_volumes: tuple[str, ...] = (),
    volumes: tuple[str, ...] = (),
) -> Plan:
    """Compare what is wanted with what was deployed.

    Args:
        wanted: the application.
        record: what is known of it; None for a new one.
        variables: those that would be sent; None to leave them.
        place: the back end's name.
        old_volumes: the named volumes of the text that is deployed.
        volumes: those of the text that is wanted.

    Raises:
        DeploymentConflictError: it cannot be done: the disk would shrink, or the machine be moved.
    """
    new_hash = wanted.workload.compose_hash.hex()
    if record is None or record.stage is Stage.PREPARED:
        return Plan(
            name=wanted.workload.name,
            place=place,
            is_new=True,
            compose_hash=new_hash,
            app_id=record.app_id if record is not None else "",
            added=tuple(sorted(wanted.names)),
            changes=tuple(_resources(Placement(), wanted.placement)),
        )
    placement = resized(record.placement, wanted.placement)
    check_change(record.name, record.placement, placement)
    before, after = parse_app_compose(record.app_compose), parse_app_compose(wanted.workload.app_compose)
    old_names, new_names = set(record.names), set(wanted.names)
    replaces = variables is not None and not is_same(record, variables)
    diff = _diff(before, after)
    # A description from elsewhere needs no more than the right name to be given them.
    handed_on = sorted(old_names & new_names) if diff and variables is None else []
    return Plan(
        name=record.name,
        place=place,
        is_new=False,
        compose_hash=new_hash,
        app_id=record.app_id,
        old_compose_hash=record.compose_hash,
        compose_diff=diff,
        changes=(
            *_members(before, after),
            *_order(record.names, wanted.names),
            *_resources(record.placement, placement),
        ),
        added=tuple(sorted(new_names - old_names)),
        removed=tuple(sorted(old_names - new_names)),
        kept=tuple(sorted(old_names & new_names)),
        replaces_variables=replaces,
        warnings=tuple(_warnings(handed_on, sorted(set(old_volumes) - set(volumes)), replaces=replaces)),
    )


def _warnings(handed_on: list[str], lost: list[str], *, replaces: bool) -> Iterator[str]:
    if handed_on:
        yield f"another text than before gets the values that are there: {', '.join(handed_on)}"
    if replaces:
        yield "all variables are replaced: what is not given again is gone"
    for volume in lost:
        yield f"the volume {volume} is no longer used; its data stays on the disk, out of reach"


def _members(before: dict[str, JsonValue], after: dict[str, JsonValue]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        if name in (*_TEXTS, _NAMES) or before.get(name) == after.get(name):
            continue
        yield Change(name=name, before=str(before.get(name, "-")), after=str(after.get(name, "-")))


def _order(before: tuple[str, ...], after: tuple[str, ...]) -> Iterator[Change]:
    """Yield that the same variables come in another order, which is measured."""
    if before != after and set(before) == set(after):
        yield Change(name=_NAMES, before=", ".join(before), after=", ".join(after))


def _resources(before: Placement, after: Placement) -> Iterator[Change]:
    old, new = asdict(before), asdict(after)
    for name, value in new.items():
        if value != old[name]:
            yield Change(name=name, before=str(old[name] or "-"), after=str(value or "-"))


def _diff(before: dict[str, JsonValue], after: dict[str, JsonValue]) -> str:
    lines: list[str] = []
    for name in _TEXTS:
        # Split at line feeds alone: what else ends lines is measured too, and its change must be seen.
        old, new = (str(members.get(name) or "").split("\n") for members in (before, after))
        lines += difflib.unified_diff(old, new, f"deployed {name}", f"wanted {name}", lineterm="", n=2)
    return "\n".join(_visible(line) for line in lines)


def _visible(line: str) -> str:
    # SECURITY: what breaks, hides or turns a line could make another of it
    # (test_a_change_that_cannot_be_seen_is_shown).
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line
    )
