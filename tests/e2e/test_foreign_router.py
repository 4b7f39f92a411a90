"""A router from outside the project, served by `blueprint run --router` on a chain with its schemas."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import eth_abi
import pytest

from blueprint.chain.deployment import Deployment, JobSpec, deploy_local, submit_job, wait_result
from blueprint.chain.devchain import DevChain
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.extract.shape import Kind
from blueprint.extract.tlv import decode_payload, encode_payload
from blueprint.extract.tlv_schema import parse_schema
from blueprint.loader import load_router

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))
from shapes import random_value

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "examples"
REFERENCE = "all_kinds.router:router"
SCHEMAS = load_router(REFERENCE, folder=EXAMPLES).schemas()


@asynccontextmanager
async def serving(chain: DevChain, deployment: Deployment, state: Path) -> AsyncIterator[None]:
    """Run the node as its operator would, from the folder of the router; it must leave with 0."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLUEPRINT_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "blueprint", "run", "--router", REFERENCE, "--json", "--http-port", "0"),
        *("--rpc-url", chain.ws_url, "--contract", "0x" + deployment.contract.hex()),
        *("--service-ids", str(deployment.service_id), "--start-block", "0", "--state-dir", str(state)),
        cwd=EXAMPLES,
        env=kept | {"PYTHONPATH": str(PROJECT), "BLUEPRINT_PRIVATE_KEY": chain.accounts[1].private_key.hex()},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        facts = json.loads(await process.stdout.readline())
        assert facts["router"] == REFERENCE, facts
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


class Caller:
    """Submits and reads the answer."""

    def __init__(self, rpc: RpcClient, signer: Signer, deployment: Deployment) -> None:
        self.rpc, self.signer, self.deployment = rpc, signer, deployment

    async def ask(self, job_index: int, inputs: bytes) -> bytes:
        """Return the answer to one call."""
        key = await submit_job(self.rpc, self.signer, self.deployment, job_index, inputs)
        return (await wait_result(self.rpc, key, 30)).output


@asynccontextmanager
async def loop(state: Path, *, declared: bool) -> AsyncIterator[Caller]:
    """A chain whose blueprint has the example's jobs, and a node that serves them."""
    jobs = [
        JobSpec(name=f"job{index}", params_schema=schema.params, result_schema=schema.result)
        if declared
        else JobSpec(name=f"job{index}")
        for index, schema in sorted(SCHEMAS.items())
    ]
    async with DevChain() as chain, RpcClient(chain.ws_url) as rpc:
        owner = Signer(chain.accounts[0].private_key)
        deployment = await deploy_local(rpc, owner, operators=[chain.accounts[1].address], jobs=jobs)
        async with serving(chain, deployment, state):
            yield Caller(rpc, owner, deployment)


@pytest.mark.slow
async def test_a_job_of_every_kind_is_served_by_the_schema_that_the_chain_declares(tmp_path: Path) -> None:
    """Each of the 23 kinds goes in and comes back through TLV; what only the node refuses is in `error`."""
    assert {field.kind for schema in SCHEMAS.values() for field in parse_schema(schema.params)} >= (
        {*Kind} - {Kind.STRUCT}  # the struct of job 22 is the fields themselves
    )
    choose = random.Random(11)
    async with loop(tmp_path, declared=True) as caller:
        for index, schema in sorted(SCHEMAS.items()):
            params, result = parse_schema(schema.params), parse_schema(schema.result)
            values = [random_value(choose, field) for field in params]
            output = await caller.ask(index, encode_payload(params, values))
            expected = [
                value for value, field in zip(values, params, strict=True) if field.kind is not Kind.VOID
            ]
            assert decode_payload(result, output) == (*expected, None), index
        output = await caller.ask(17, b"\x02\xff\xfe")  # the chain looks at widths only: this is no UTF-8
        value, error = decode_payload(parse_schema(SCHEMAS[17].result), output)
        assert value == ""
        assert "UTF-8" in str(error)


async def test_the_same_jobs_are_served_by_the_contract_abi(tmp_path: Path) -> None:
    """Where the chain declares nothing, the same node and router speak the ABI, errors as well."""
    async with loop(tmp_path, declared=False) as caller:
        output = await caller.ask(8, eth_abi.encode(["uint64"], [2**64 - 1]))
        assert eth_abi.decode(["uint64"], output) == (2**64 - 1,)
        ((_, status, message),) = eth_abi.decode(["(uint16,uint8,string)"], await caller.ask(2, bytes(31)))
        assert status == 20, message
        assert "bytes expected: 32, left: 31" in message


@pytest.mark.parametrize("index", sorted(SCHEMAS))
def test_every_job_can_carry_an_error(index: int) -> None:
    """No schema that the example declares leaves a failed call without an answer."""
    assert any(field.name == "error" for field in parse_schema(SCHEMAS[index].result))
