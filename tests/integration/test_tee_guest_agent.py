"""Client and simulated agent speak over a real socket, and what comes back is real evidence."""

import hashlib
import time
from pathlib import Path

import coincurve
import httpx
import pytest

from blueprint.errors import AttestationError, AttestorUnavailableError
from blueprint.tee.guest_agent import GuestAgentClient, GuestSignature
from blueprint.tee.kms_key import verify_key_chain, verify_public_key
from blueprint.tee.policy import AttestationPolicy
from blueprint.tee.report_data import certificate_report_data
from blueprint.tee.sealing import SecretVariable, seal
from blueprint.tee.simulator.agent import GuestAgent
from blueprint.tee.simulator.cvm import SimulatedCvm
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform
from blueprint.tee.verify import verify_quote
from tests.support.raw_server import RawServer, answer

APP_ID = bytes(range(20))
COMPOSE = b'{"name":"app","kms_enabled":true,"allowed_envs":["A"]}'
KMS = SimulatedKms()
PLATFORM = MockPlatform()
PINNED = {KMS.root_public_key}


@pytest.fixture
def cvm():
    return SimulatedCvm(app_compose=COMPOSE, sealed=None, app_id=APP_ID, kms=KMS, platform=PLATFORM)


@pytest.fixture
async def client(cvm, tmp_path: Path):
    """A client of a running agent."""
    async with GuestAgent(cvm, tmp_path / "a.sock"), GuestAgentClient(str(tmp_path / "a.sock")) as made:
        yield made


async def test_the_whole_way(client, cvm):
    """Seal to a verified key, boot, ask for a quote over a nonce, verify it: all real but the root."""
    key = verify_public_key(
        app_id=APP_ID,
        public_key=KMS.env_public_key(APP_ID),
        signature=KMS.sign_public_key(APP_ID, timestamp_s=100),
        pinned_keys=PINNED,
        timestamp_s=100,
        now_s=200,
    )
    sealed = seal([SecretVariable("A", "1"), SecretVariable("B", "2")], key.public_key)
    booted = SimulatedCvm(app_compose=COMPOSE, sealed=sealed, app_id=APP_ID, kms=KMS, platform=PLATFORM)
    assert booted.variables == (SecretVariable("A", "1"),)
    given, now_s = await client.get_quote(b"nonce"), int(time.time())
    verified = verify_quote(
        given.quote,
        collateral=PLATFORM.collateral(now_s),
        event_log=given.event_log,
        report_data=b"nonce".ljust(64, b"\0"),
        policy=AttestationPolicy(
            development_root=PLATFORM.root_ca, compose_hash=hashlib.sha256(COMPOSE).digest(), app_id=APP_ID
        ),
        now_s=now_s,
        app_compose=COMPOSE,
    )
    assert verified.instance_id == cvm.instance_id


async def test_info_names_the_application(client, cvm):
    """Identity and certificate are the guest's."""
    info = await client.info()
    assert (info.app_id, info.app_name, info.compose_hash) == (APP_ID, "app", cvm.compose_hash)
    assert certificate_report_data(info.certificate.encode()) == certificate_report_data(
        cvm.certificate.encode()
    )


async def test_a_key_chains_to_the_kms(client):
    """The key depends on the path alone, and its chain ends in the pinned root."""
    first = await client.get_key(path="p", purpose="x")
    other = await client.get_key(path="p", purpose="y")
    assert first.key == other.key != (await client.get_key(path="q", purpose="x")).key
    root = verify_key_chain(
        app_id=APP_ID,
        purpose="x",
        public_key=coincurve.PrivateKey(first.key).public_key.format(),
        signature_chain=first.signature_chain,
        pinned_keys=PINNED,
    )
    assert root == KMS.root_public_key
    assert first.key.hex() not in repr(first)
    assert str(first.key) not in repr(first)


@pytest.mark.parametrize("algorithm", ["secp256k1", "ed25519", "secp256k1_prehashed"])
async def test_a_signature_verifies_and_chains(client, algorithm):
    """What the agent signs it verifies, a changed message it does not, and the key chains to the KMS."""
    signed = await client.sign(b"m" * 32, algorithm=algorithm)
    assert await client.verify(b"m" * 32, signed, algorithm=algorithm)
    assert not await client.verify(b"n" * 32, signed, algorithm=algorithm)
    root = verify_key_chain(
        app_id=APP_ID,
        purpose="signing",
        public_key=signed.public_key,
        signature_chain=signed.signature_chain[1:],
        pinned_keys=PINNED,
    )
    assert root == KMS.root_public_key


async def test_the_agent_says_its_version(client):
    """A newer image has this method."""
    assert await client.version()


async def test_requests_that_cannot_be_served_are_refused(client):
    """The error of the agent reaches the caller."""
    with pytest.raises(AttestationError, match="GetQuote answered 400: report data has 65 bytes"):
        await client.get_quote(b"x" * 65)
    with pytest.raises(AttestationError, match="unsupported algorithm 'rsa'"):
        await client.get_key(path="", purpose="", algorithm="rsa")
    with pytest.raises(AttestationError, match="a digest has 32 bytes"):
        await client.sign(b"short", algorithm="secp256k1_prehashed")
    no_key = GuestSignature(signature=b"", public_key=b"\x09", signature_chain=())
    with pytest.raises(AttestationError, match="Verify answered 400"):
        await client.verify(b"", no_key)


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("GetKey", b"{", 400),
        ("GetKey", b"[]", 400),
        ("GetKey", b"[" * 9000, 400),
        ("GetKey", b'{"path":1}', 400),
        ("GetQuote", b'{"report_data":"zz"}', 400),
        ("EmitEvent", b"{}", 404),
        ("Info", b"", 200),
    ],
)
async def test_the_agent_answers_bad_requests(cvm, tmp_path: Path, method, body, status):
    """Whatever a container sends, the answer is JSON with an error."""
    async with GuestAgent(cvm, tmp_path / "a.sock"):
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "a.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://dstack") as raw:
            response = await raw.post(f"/{method}", content=body)
    assert (response.status_code, "error" in response.json()) == (status, status != 200)


async def test_without_an_agent_it_is_unavailable(tmp_path: Path):
    """Outside a CVM there is no socket; the error says where it was looked for."""
    async with GuestAgentClient(str(tmp_path / "none.sock")) as client:
        with pytest.raises(AttestorUnavailableError, match=r"none\.sock"):
            await client.info()


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"[]", b"{}", b'{"key":1}', b'{"key":"zz"}', b'{"key":"00","signature_chain":3}'],
)
async def test_an_answer_of_another_shape_is_refused(body):
    """Another agent's mistakes become one kind of error, also over HTTP, and nothing of a key is in it."""
    async with RawServer(lambda _: answer(body)) as server, GuestAgentClient(server.url) as client:
        with pytest.raises(AttestationError, match="no JSON object|hexadecimal digits|no list"):
            await client.get_key(path="", purpose="")
