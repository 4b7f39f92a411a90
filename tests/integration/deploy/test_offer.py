"""What a node offers with the cloud as its place: opened only with a key that the cloud accepts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from rich.console import Console

from blueprint.cli.deploy.offer import Offer, opened_offer
from blueprint.cli.session import Session
from blueprint.errors import ConfigError, JournalError
from blueprint.http.outputs import OutputStore
from blueprint.log import Redactor
from blueprint.settings import Settings
from blueprint.testing.cloud import FakeCloud, Fault
from blueprint.types import Address

TABLE = {"callers": "any", "images": ["nginx:1.25"], "allow": ["tag"]}


@asynccontextmanager
async def offer_at(cloud: FakeCloud, folder: Path, **settings: Any) -> AsyncIterator[Offer]:
    """Open an offer as `blueprint run` does."""
    console = Console(quiet=True)
    given = {
        "state_dir": folder, "place": "phala", "cloud_url": cloud.url, "cloud_api_key": cloud.api_key,
        "deploy": TABLE, **settings,
    }  # fmt: skip
    session = Session(
        settings=Settings.model_validate(given), origins={}, is_json=True, is_debug=False,
        stdout=console, stderr=console, redactor=Redactor(),
    )  # fmt: skip
    outputs = OutputStore(folder / "outputs", max_bytes=1 << 20, item_max_bytes=1 << 20)
    async with opened_offer(session, operator=Address(b"\x0b" * 20), evidence=outputs) as offer:
        assert offer is not None
        yield offer


async def test_a_key_that_the_cloud_refuses_stops_the_start(cloud: FakeCloud, tmp_path: Path) -> None:
    """It is a setting that is wrong, and no call is taken; the key is not in the message."""
    with pytest.raises(ConfigError, match="401") as caught:
        async with offer_at(cloud, tmp_path, cloud_api_key="phak_not-the-key"):
            pass
    assert "not-the-key" not in str(caught.value)


async def test_a_cloud_that_fails_now_does_not_stop_the_start(cloud: FakeCloud, tmp_path: Path) -> None:
    """The node has programs to run too: it is told, and the offer stands."""
    cloud.fail("GET", "/cvms/paginated", Fault(body=b"<html>maintenance"))
    with structlog.testing.capture_logs() as logs:
        async with offer_at(cloud, tmp_path) as offer:
            assert offer.load() == {"place": "phala", "applications": {}}
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["place_not_reached"]


async def test_an_offer_that_takes_nothing_says_so(cloud: FakeCloud, tmp_path: Path) -> None:
    """No caller, or no image, is a table that was left unfinished, or an offer that ends."""
    with structlog.testing.capture_logs() as logs:
        async with offer_at(cloud, tmp_path, deploy={**TABLE, "callers": []}):
            pass
    assert "no_deployment_is_taken" in [line["event"] for line in logs]


async def test_two_nodes_do_not_share_the_memory_of_orders(cloud: FakeCloud, tmp_path: Path) -> None:
    """The second one on the same state folder is refused, with the file that is held."""
    async with offer_at(cloud, tmp_path):
        with pytest.raises(JournalError, match=r"deployments\.db"):
            async with offer_at(cloud, tmp_path):
                pass
