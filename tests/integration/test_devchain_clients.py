"""Programs that others wrote talk to the embedded chain: web3.py, and cast of Foundry."""

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from web3 import AsyncHTTPProvider, AsyncWeb3, WebSocketProvider
from web3.exceptions import ContractCustomError

import contracts
from blueprint.chain.anvil import Anvil
from blueprint.chain.devchain import DevChain
from tests.support.chains import Chain, JsonRpc

CAST = Path(contracts.__file__).parent / "node_modules/@foundry-rs/cast-linux-amd64/bin/cast"
BENEFICIARY = "0x" + "42" * 20


@pytest.fixture(params=["devchain", pytest.param("anvil", marks=pytest.mark.anvil)])
async def chain(request: pytest.FixtureRequest) -> AsyncIterator[Chain]:
    """Each of the two chains."""
    async with DevChain() if request.param == "devchain" else Anvil() as chain:
        yield chain


async def use_contract(web3: AsyncWeb3, owner: str) -> None:
    """Deploy a contract, call it, make it revert, and read its log, all through web3.py."""
    artifact = contracts.load("LocalTangle")
    factory = web3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
    receipt = await web3.eth.wait_for_transaction_receipt(
        await factory.constructor().transact({"from": owner})
    )
    tangle = web3.eth.contract(address=receipt["contractAddress"], abi=artifact.abi)
    zero = "0x" + "00" * 20
    register = tangle.functions.registerBlueprint(zero, [("execute", b"", b"")], 0, 0)
    assert await register.call({"from": owner}) == 0
    await web3.eth.wait_for_transaction_receipt(await register.transact({"from": owner}))
    activate = tangle.functions.activateService(0, [owner], [], 0)
    receipt = await web3.eth.wait_for_transaction_receipt(await activate.transact({"from": owner}))
    (event,) = tangle.events.ServiceActivated().process_receipt(receipt)
    assert event["args"]["serviceId"] == 0
    with pytest.raises(ContractCustomError):
        await tangle.functions.submitJob(7, 0, b"").call()
    assert [
        log["transactionHash"] for log in await tangle.events.ServiceActivated().get_logs(from_block=0)
    ] == [receipt["transactionHash"]]


async def test_web3_works_over_http(chain: Chain) -> None:
    """web3.py deploys, calls, sends and decodes over HTTP."""
    web3 = AsyncWeb3(AsyncHTTPProvider(chain.http_url))
    try:
        await use_contract(web3, chain.accounts[0].address_hex)
        assert await web3.eth.chain_id == 31_337
        assert (await web3.eth.get_block("latest", full_transactions=True))["number"] == 3
        assert (await web3.eth.fee_history(2, "latest", [50]))["oldestBlock"] == 2
    finally:
        await web3.provider.disconnect()


async def test_web3_works_over_websocket(chain: Chain) -> None:
    """web3.py does the same over one WebSocket, and hears of new heads."""
    async with AsyncWeb3(WebSocketProvider(chain.ws_url)) as web3:
        await use_contract(web3, chain.accounts[0].address_hex)
        subscription = await web3.eth.subscribe("newHeads")
        await web3.eth.send_transaction(
            {"from": chain.accounts[0].address_hex, "to": chain.accounts[1].address_hex, "value": 1}
        )
        async with asyncio.timeout(10):
            async for message in web3.socket.process_subscriptions():
                assert message["subscription"] == subscription
                assert message["result"]["number"] == 4
                break


@pytest.mark.node
@pytest.mark.skipif(
    not CAST.exists() and shutil.which("cast") is None,
    reason="needs cast: npm ci --prefix contracts",
)
async def test_cast_works() -> None:
    """Foundry's cast asks for the block number, sends a transfer, and calls."""

    async def cast(command: str, *arguments: str) -> str:
        binary = str(CAST) if CAST.exists() else "cast"
        process = await asyncio.create_subprocess_exec(
            binary, command, "--rpc-url", chain.http_url, *arguments, stdout=PIPE, stderr=PIPE
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode().strip()

    async with DevChain() as chain, JsonRpc.connect(chain.http_url) as rpc:
        assert await cast("block-number") == "0"
        key = chain.accounts[0].private_key.hex()
        receipt = json.loads(await cast("send", BENEFICIARY, "--value", "7", "--private-key", key, "--json"))
        assert receipt["status"] == "0x1"
        assert await rpc.call("eth_getBalance", BENEFICIARY, "latest") == "0x7"
        artifact = contracts.load("LocalTangle")
        created = json.loads(
            await cast("send", "--private-key", key, "--json", "--create", "0x" + artifact.bytecode.hex())
        )
        answer = await cast(
            "call", created["contractAddress"], "isServiceOperator(uint64,address)(bool)", "0", BENEFICIARY
        )
        assert answer == "false"
