"""What ``blueprint run`` deploys for callers on the chain: the `deploy` job with all that it holds.

Invariant: a node that offers deployments has a place, a policy and a memory for them before the first call;
what is wrong with one of them is said at its start.
"""

import asyncio
import difflib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from blueprint.cli.deploy.place import opened_service
from blueprint.cli.session import Session
from blueprint.errors import ConfigError, JournalError
from blueprint.settings_deployment import OfferSetting
from blueprint.types import Address
from jobs.deploy.backends.backend import Backend, Placement
from jobs.deploy.cloud.errors import ForbiddenError, UnauthorizedError
from jobs.deploy.compose.findings import WHOLE_MACHINE, Allowance
from jobs.deploy.deployer import ServiceDeployer
from jobs.deploy.errors import DeployError
from jobs.deploy.handler import DeployJob, DeployTerms, EvidenceStore
from jobs.deploy.order_book import OrderBook
from jobs.deploy.policy import DeployPolicy
from jobs.deploy.shelf import ComposeShelf

__all__ = ["Offer", "offered", "opened_offer", "policy_of", "terms_of"]

_SETTLING_S = 1200.0
"""What an attempt may take beside the wait for healthy containers: the place's own steps."""
_ANOTHER_S = 600.0
"""How much longer than for one attempt a call is left to the operator that it names."""
_KNOCK_S = 20.0
"""How long a node's start waits for the place: the node has other work too."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The deployments of a node while it runs."""

    place: str
    job: DeployJob
    book: OrderBook

    def load(self) -> dict[str, Any]:
        """Return where applications are deployed, and how many stand where."""
        counts = self.book.counts()
        return {"place": self.place, "applications": {state.value: counts[state] for state in counts}}

    async def keep_house(self) -> None:
        """Remove what has expired until cancelled; a round that fails is told, and the next one comes.

        Raises:
            JournalError: the memory of the orders cannot be used.
        """
        while True:
            try:
                await self.job.keep_house()
            except JournalError:
                raise
            except Exception:  # noqa: BLE001 - calls are still answered, and the next round may go well
                _log.exception("house_keeping_failed", place=self.place)


def offered(session: Session) -> OfferSetting | None:
    """Return what is to be deployed for callers, None for nothing, once it is found to make sense.

    Raises:
        ConfigError: there is no place; or the router is not the one that has the job; or a part of the table
            names something that there is none of.
    """
    settings = session.settings
    if settings.deploy is None:
        return None
    if settings.router != "jobs":
        raise ConfigError(
            f"deploy: the router {settings.router} is not the one with the job `deploy`; leave out the "
            "table [deploy], or the setting router"
        )
    if settings.place is None:
        raise ConfigError(
            'deploy: no place to deploy callers\' applications to: set place = "phala" (the cloud; it wants '
            'an API key) or "local" (a Docker engine here)'
        )
    policy = policy_of(settings.deploy)
    # SECURITY: callers would own this host (test_callers_are_not_given_this_host).
    if settings.place == "local" and (given := policy.allow & WHOLE_MACHINE):
        raise ConfigError(
            f"deploy.allow: {', '.join(sorted(given))} would give this host to callers: at the local place "
            "it is the machine; leave that out"
        )
    _shelf(settings.deploy.compose_dir)
    return settings.deploy


@asynccontextmanager
async def opened_offer(
    session: Session, *, operator: Address, evidence: EvidenceStore
) -> AsyncIterator[Offer | None]:
    """Open what the settings offer to callers, None where that is nothing; close it at the end.

    Args:
        session: its settings say what, and where.
        operator: the account that answers.
        evidence: keeps what was verified.

    Raises:
        ConfigError: a setting is missing or makes no sense, or the place does not accept the API key.
        DeployError: there is no place on this machine.
        JournalError: another node has the memory of the orders, or it cannot be used.
    """
    setting = offered(session)
    if setting is None:
        yield None
        return
    policy, terms, find_compose = policy_of(setting), terms_of(session), _shelf(setting.compose_dir)
    place = str(session.settings.place)
    with OrderBook(session.state_dir / "deployments.db") as book:
        async with opened_service(session, place, is_verifying=True, say=_say) as service:
            job = DeployJob(
                ServiceDeployer(service, allow=policy.allow),
                book,
                admission=policy,
                operator=operator,
                evidence=evidence,
                find_compose=find_compose,
                terms=terms,
            )
            await _knock(service.backend)
            if policy.callers == frozenset() or not policy.images:
                _log.warning("no_deployment_is_taken", reason="deploy.callers or deploy.images names nothing")
            yield Offer(place=place, job=job, book=book)


async def _knock(backend: Backend) -> None:
    """Ask the place something harmless: a key that it refuses is found now; what may pass is told.

    Raises:
        ConfigError: the place refuses the key.
    """
    try:
        async with asyncio.timeout(_KNOCK_S):
            await backend.machines.list()
    except (UnauthorizedError, ForbiddenError) as exc:
        raise ConfigError(f"deploy: {exc}") from exc
    except (DeployError, TimeoutError) as exc:  # programs can be run all the same, and calls are retried
        reason = str(exc) or f"no answer in {_KNOCK_S:g} s"
        _log.warning("place_not_reached", place=backend.name, reason=reason)


def policy_of(setting: OfferSetting) -> DeployPolicy:
    """Return the operator's policy.

    Raises:
        ConfigError: a risk has a name that there is none of.
    """
    return DeployPolicy(
        callers=None if setting.callers == "any" else frozenset(map(Address, setting.callers)),
        images=setting.images,
        instance_types=frozenset(setting.instance_types),
        most=Placement(vcpu=setting.vcpu, memory_mb=setting.memory_mb, disk_gb=setting.disk_gb),
        max_deployments=setting.max_deployments,
        allow=frozenset(map(_allowance, setting.allow)),
        is_public_allowed=setting.public,
    )


def terms_of(session: Session) -> DeployTerms:
    """Return the times of the job: an attempt lasts longer than the wait for healthy containers."""
    setting, timeout_s = session.settings.deploy, session.settings.ready_timeout_s + _SETTLING_S
    assert setting is not None, "terms are those of an offer"
    return DeployTerms(
        expires_s=setting.expires_s, timeout_s=timeout_s, other_operator_s=timeout_s + _ANOTHER_S
    )


def _allowance(name: str) -> Allowance:
    try:
        return Allowance(name)
    except ValueError:
        near = difflib.get_close_matches(name, list(Allowance), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"deploy.allow: there is no risk {name[:40]!r}; {hint}known are {', '.join(Allowance)}"
        ) from None


def _shelf(folder: Path | None) -> Callable[[bytes], str | None]:
    if folder is None:
        return lambda _: None
    if not folder.is_dir():
        raise ConfigError(f"deploy.compose_dir: {folder} is no folder; make it, or leave the setting out")
    return ComposeShelf(folder).find


def _say(step: str) -> None:
    """Put a step into the log, where a command shows it on the terminal."""
    _log.info("deployment_advanced", step=step)
