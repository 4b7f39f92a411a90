"""What a node offers to callers: read from the settings, and refused at the start where it makes no sense."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from rich.console import Console
from typing_extensions import override

from blueprint.cli.deploy.offer import Offer, offered, opened_offer, policy_of, terms_of
from blueprint.cli.deploy.prerequisites import place_findings
from blueprint.cli.session import Session
from blueprint.errors import ConfigError, JournalError
from blueprint.http.outputs import OutputStore
from blueprint.log import Redactor
from blueprint.settings import Settings
from blueprint.types import Address
from jobs.deploy.backends.backend import Placement
from jobs.deploy.compose.findings import WHOLE_MACHINE, Allowance
from jobs.deploy.handler import DeployJob, DeployTerms
from jobs.deploy.order_book import OrderBook
from jobs.deploy.policy import DeployPolicy
from jobs.deploy.testing import FakeDeployer
from sandbox.check import Level

OPERATOR = Address(b"\x0b" * 20)
TABLE = {
    "callers": ["0x" + "ca" * 20],
    "images": ["registry.example/team/*@**"],
    "instance_types": ["tdx.small"],
    "memory_mb": 4096,
    "disk_gb": 40,
    "max_deployments": 3,
    "allow": ["tag", "host-mount"],
    "public": True,
}


def session(folder: Path, **settings: Any) -> Session:
    """Return a command's session with these settings."""
    console = Console(quiet=True)
    return Session(
        settings=Settings.model_validate({"state_dir": folder, **settings}),
        origins={}, is_json=True, is_debug=False, stdout=console, stderr=console, redactor=Redactor(),
    )  # fmt: skip


def test_the_table_is_the_operators_policy(tmp_path: Path) -> None:
    """Each member of the table is one of the policy, and what it leaves out is not given away."""
    setting = offered(session(tmp_path, place="local", deploy=TABLE))
    assert setting is not None
    assert policy_of(setting) == DeployPolicy(
        callers=frozenset({Address(b"\xca" * 20)}),
        images=("registry.example/team/*@**",),
        instance_types=frozenset({"tdx.small"}),
        most=Placement(memory_mb=4096, disk_gb=40),
        max_deployments=3,
        allow=frozenset({Allowance.TAG, Allowance.HOST_MOUNT}),
        is_public_allowed=True,
    )


def test_any_caller_must_be_named_so(tmp_path: Path) -> None:
    """The word `any` opens it to everybody; an empty table takes nobody's orders."""
    everybody = offered(session(tmp_path, place="local", deploy={"callers": "any"}))
    nobody = offered(session(tmp_path, place="local", deploy={}))
    assert everybody is not None
    assert nobody is not None
    assert (policy_of(everybody).callers, policy_of(nobody)) == (None, DeployPolicy())


def test_an_attempt_lasts_longer_than_the_wait_for_containers(tmp_path: Path) -> None:
    """However long that is; and a call for another operator is left to that one for longer still."""
    terms = terms_of(session(tmp_path, place="local", ready_timeout_s=7200, deploy={"expires_s": 60}))
    assert terms.expires_s == 60
    assert 7200 < terms.timeout_s < terms.other_operator_s
    usual = terms_of(session(tmp_path, place="local", deploy={}))
    assert (usual.timeout_s, usual.other_operator_s) == (1800.0, 2400.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"deploy": {}}, "no place to deploy"),
        ({"deploy": {}, "place": "local", "router": "mine:router"}, "the router mine:router"),
        ({"deploy": {"allow": ["privilegd"]}, "place": "local"}, "did you mean privileged"),
        ({"deploy": {"compose_dir": "/nowhere"}, "place": "local"}, "/nowhere is no folder"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_at_the_start(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    """Each with the setting's name and what to do, before anything is opened."""
    with pytest.raises(ConfigError, match=words):
        offered(session(tmp_path, **settings))


@pytest.mark.parametrize("risk", sorted(WHOLE_MACHINE))
def test_callers_are_not_given_this_host(tmp_path: Path, risk: Allowance) -> None:
    """A machine of its own may be an application's; at the local place there is none."""
    table = {"allow": ["tag", risk.value]}
    with pytest.raises(ConfigError, match=f"{risk} would give this host"):
        offered(session(tmp_path, place="local", deploy=table))
    assert offered(session(tmp_path, place="phala", deploy=table)) is not None


async def test_without_a_table_nothing_is_offered_or_opened(tmp_path: Path) -> None:
    """A node without the table keeps no memory of orders, even where it has a place."""
    outputs = OutputStore(tmp_path / "outputs", max_bytes=1, item_max_bytes=1)
    async with opened_offer(session(tmp_path, place="local"), operator=OPERATOR, evidence=outputs) as offer:
        assert offer is None
    assert not (tmp_path / "deployments.db").exists()


async def test_the_local_place_is_not_offered_unless_its_root_is_trusted(tmp_path: Path) -> None:
    """A node that could verify nothing does not start."""
    outputs = OutputStore(tmp_path / "outputs", max_bytes=1, item_max_bytes=1)
    with pytest.raises(ConfigError, match="--trust-development-root"):
        async with opened_offer(
            session(tmp_path, place="local", deploy=TABLE), operator=OPERATOR, evidence=outputs
        ):
            pass


class Rounds(DeployJob):
    """A job whose rounds of house-keeping end as they are told to."""

    ends: list[Exception | None]

    @override
    async def sweep(self) -> int:
        if (end := self.ends.pop(0)) is not None:
            raise end
        return 0


@pytest.fixture
def offer(tmp_path: Path) -> Iterator[Offer]:
    """An offer whose rounds follow at once."""
    with OrderBook(tmp_path / "book.db") as book:
        job = Rounds(
            FakeDeployer(tmp_path / "fake.json"), book, admission=DeployPolicy(), operator=OPERATOR,
            terms=DeployTerms(house_keeping_s=0.0),
        )  # fmt: skip
        job.ends = []
        yield Offer(place="local", job=job, book=book)


async def test_a_round_of_house_keeping_that_fails_is_told_and_the_next_one_comes(offer: Offer) -> None:
    """Whatever fails is logged as an error; only what the journal cannot do ends the node."""
    assert isinstance(offer.job, Rounds)
    offer.job.ends = [OSError("no space"), None, JournalError("the disk is full"), None]
    with structlog.testing.capture_logs() as logs, pytest.raises(JournalError, match="the disk is full"):
        async with asyncio.timeout(5):
            await offer.keep_house()
    assert [(line["event"], line["log_level"]) for line in logs] == [("house_keeping_failed", "error")]
    assert offer.job.ends == [None]


async def test_what_the_settings_lack_is_found_before_the_node_starts(tmp_path: Path) -> None:
    """`doctor` names the table that makes no sense, the missing key and the key file that others can read."""
    key = tmp_path / "key"
    key.write_text("secret of the workspace\n")
    key.chmod(0o644)
    lacking = session(tmp_path, place="phala", cloud_api_key_file=key, deploy={"allow": ["privilegd"]})
    told = {finding.name: finding for finding in await place_findings(lacking)}
    assert {finding.level for finding in told.values()} == {Level.MISSING}
    assert "privilegd" in told["deployments"].detail
    assert "chmod 600" in told["cloud api key"].detail
    key.chmod(0o600)
    having = session(tmp_path, place="phala", cloud_api_key_file=key, deploy=TABLE)
    assert {finding.level for finding in await place_findings(having)} == {Level.OK}
    assert await place_findings(session(tmp_path)) == []
