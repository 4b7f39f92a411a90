"""Independent libraries seal for ours, check what our KMS signs, and ask our agent."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blueprint.tee.sealing import SecretVariable, unseal
from blueprint.tee.simulator.agent import GuestAgent
from blueprint.tee.simulator.cvm import SimulatedCvm
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform
from jobs.deploy.app_compose import AppCompose

pytestmark = [pytest.mark.registry, pytest.mark.slow]
APP_ID = bytes(range(20))
KMS = SimulatedKms(b"k" * 32)
VALUES = {"A": 'quo"te', "B": "new\nline", "C": "\u00fc\u6f22\U0001f511", "D": "", "E": "$HOME \\ 'x'"}
APP = AppCompose(
    name="web-app",
    docker_compose_file='services:\r\n\t"q" \\ \u00fc\u6f22\U0001f511 \u2028 <&> \x7f\x01\x1b\n',
    allowed_envs=("B", "A"),
    pre_launch_script="echo '<\u2029>'",
    swap_size=1 << 40,
).workload()
EXPECTED = tuple(SecretVariable(key, value) for key, value in VALUES.items())

PYTHON = """
import json, sys, warnings
from dstack_sdk import DstackClient, EnvVar, encrypt_env_vars_sync
from dstack_sdk import get_compose_hash, verify_env_encrypt_public_key, verify_env_encrypt_public_key_legacy
given = json.load(sys.stdin)
envs = [EnvVar(key, value) for key, value in given["values"].items()]
key, signature, timed = (bytes.fromhex(given[name]) for name in ("key", "signature", "timed"))
warnings.simplefilter("ignore")
signers = [
    verify_env_encrypt_public_key_legacy(key, signature, given["app_id"]),
    verify_env_encrypt_public_key(key, timed, given["app_id"], given["now_s"]),
]
client = DstackClient(given["socket"])
quote = client.get_quote(b"nonce")
print(json.dumps({
    "sealed": encrypt_env_vars_sync(envs, given["key"]),
    "signers": signers,
    "app_id": client.info().app_id,
    "key": client.get_key("path", "purpose").key,
    "rtmr3": quote.replay_rtmrs()[3],
    "compose_hash": get_compose_hash(given["app_compose"]),
}))
"""
NODE = """
import { encryptEnvVars } from "@phala/dstack-sdk/encrypt-env-vars"
import { getComposeHash } from "@phala/dstack-sdk/get-compose-hash"
import { readFileSync } from "node:fs"
const given = JSON.parse(readFileSync(0, "utf8"))
const envs = Object.entries(given.values).map(([key, value]) => ({ key, value }))
const compose_hash = getComposeHash(given.app_compose)
console.log(JSON.stringify({ sealed: await encryptEnvVars(envs, given.key), compose_hash }))
"""


def run(command, given, folder, environment=None):
    done = subprocess.run(
        command,
        input=json.dumps(given),
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
        cwd=folder,
        env=None if environment is None else {**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def install(command, folder):
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr


async def test_the_python_library_agrees(tmp_path: Path):
    """It seals for us, counts our compose hash, recovers our KMS key, and gets a quote from our agent."""
    # Without its dependencies: they are here already, and one of them would replace Python's own asyncio.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", "site", "dstack-sdk"]
    await asyncio.to_thread(install, pip, tmp_path)
    cvm = SimulatedCvm(
        app_compose=b'{"kms_enabled":true}', sealed=None, app_id=APP_ID, kms=KMS, platform=MockPlatform()
    )
    now_s = int(time.time())
    given = {
        "values": VALUES,
        "key": KMS.env_public_key(APP_ID).hex(),
        "signature": KMS.sign_public_key(APP_ID).hex(),
        "timed": KMS.sign_public_key(APP_ID, timestamp_s=now_s).hex(),
        "now_s": now_s,
        "app_id": APP_ID.hex(),
        "socket": str(tmp_path / "a.sock"),
        "app_compose": json.loads(APP.app_compose),
    }
    async with GuestAgent(cvm, tmp_path / "a.sock"):
        command = [sys.executable, "-c", PYTHON]
        said = await asyncio.to_thread(run, command, given, tmp_path, {"PYTHONPATH": str(tmp_path / "site")})
    assert unseal(bytes.fromhex(said["sealed"]), KMS.env_private_key(APP_ID)) == EXPECTED
    assert said["signers"] == [f"0x{KMS.root_public_key.hex()}"] * 2
    assert said["app_id"] == APP_ID.hex()
    assert said["key"] == cvm.derive_key("path", "purpose", "secp256k1")[0].hex()
    assert said["rtmr3"] == cvm.tcb_info()["rtmr3"]
    assert said["compose_hash"] == APP.compose_hash.hex()


@pytest.mark.node
def test_the_javascript_library_seals_and_ours_opens(tmp_path: Path):
    """Values with quotes, newlines and Unicode come through, and it counts the same compose hash."""
    (tmp_path / "package.json").write_text('{"private":true,"type":"module"}')
    (tmp_path / "seal.mjs").write_text(NODE)
    install(
        ["npm", "install", "--no-audit", "--no-fund", "--legacy-peer-deps", "--ignore-scripts",
         "@phala/dstack-sdk", "@noble/curves@1", "@noble/hashes@1"],
        tmp_path,
    )  # fmt: skip
    given = {
        "values": VALUES,
        "key": KMS.env_public_key(APP_ID).hex(),
        "app_compose": json.loads(APP.app_compose),
    }
    said = run(["node", "seal.mjs"], given, tmp_path)
    assert unseal(bytes.fromhex(said["sealed"]), KMS.env_private_key(APP_ID)) == EXPECTED
    assert said["compose_hash"] == APP.compose_hash.hex()
