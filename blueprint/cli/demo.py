"""``blueprint demo``: the whole loop on this machine, with real programs, and every answer checked.

Invariant: it succeeds only when every answer is there and right, and it always leaves no process behind.
"""

import asyncio
import os
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Group
from rich.text import Text

from blueprint.chain.deployment import Deployment, submit_job, wait_result
from blueprint.chain.rpc import RpcClient
from blueprint.chain.signer import Signer
from blueprint.cli import demo_cases as cases
from blueprint.cli.answer import read_answer, status_name
from blueprint.cli.chain import CALLER, OPERATOR, deploy_on, opened_chain
from blueprint.cli.demo_consumer import ContractAnswer, ask_contract
from blueprint.cli.demo_node import NodeProcess, running_node
from blueprint.cli.demo_view import Narrator, ResultTable, Row, row_json
from blueprint.cli.exits import ExitCode
from blueprint.cli.outcome import time_text
from blueprint.cli.runtimes import build
from blueprint.cli.sandboxes import choose_trees
from blueprint.cli.scratch import scratch_folder
from blueprint.cli.session import Session, node_command
from blueprint.cli.signals import StopSignals
from blueprint.types import Address, CallKey
from jobs.execute import EXECUTE_INDEX
from jobs.execute_codec import encode_request
from sandbox.languages import LANGUAGES, find
from sandbox.rootfs import find_tree, survey_host

__all__ = ["command"]

_SETTINGS = ("languages", "tree", "trees_dir", "state_dir", "backend")
_ANSWER_TIMEOUT_S: Final = 240.0
_CONCURRENT: Final = 2


@click.command("demo", help="Submit real programs on an embedded chain and watch the node answer them.")
@click.option("--anvil", "use_anvil", is_flag=True, help="Use anvil instead of the embedded chain.")
@click.option(
    "--record", type=click.Path(path_type=Path, dir_okay=False), hidden=True, help="Write an SVG of the run."
)
@node_command(settings=_SETTINGS)
def command(session: Session, *, use_anvil: bool, record: Path | None) -> int:
    """Run the loop once; exit code 1 when an answer is missing or wrong."""
    narrator = Narrator(session, is_recorded=record is not None)
    plan = _prepare(session, narrator)
    code = asyncio.run(_until_stopped(session, narrator, plan, use_anvil=use_anvil))
    if record is not None:
        narrator.save(record)
    if code == ExitCode.OK:
        session.suggest("blueprint exec FILE", "blueprint chain")
    return code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What the demonstration runs, and on which tree."""

    languages: tuple[str, ...]
    tree_kind: str
    missing: dict[str, str]
    """Languages that are not on this machine, and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Everything that stands while the programs run."""

    rpc: RpcClient
    caller: Signer
    deployment: Deployment
    consumer: Address
    node: NodeProcess


def _prepare(session: Session, narrator: Narrator) -> _Plan:
    """Find or build the language tree; without root, or with ``--tree host``, take the host's programs."""
    asked = tuple(dict.fromkeys(find(name).name for name in session.settings.languages))
    wanted = tuple(dict.fromkeys((*asked, "python"))) if asked else tuple(LANGUAGES)
    if asked and "python" not in asked:
        narrator.say("python is added: the three programs that must fail are written in it")
    kind = session.settings.tree
    if kind != "host":
        is_root = os.geteuid() == 0
        if find_tree(session.trees_dir, wanted) is None and (is_root or kind == "debian"):
            narrator.say("building the language tree; later runs reuse it (--tree host does without)")
            build(session, wanted)
        tree = find_tree(session.trees_dir, wanted)
        if tree is not None:
            narrator.say(f"language tree {tree.digest[:12]}: {_listed(tree.runtimes)}")
            return _Plan(languages=wanted, tree_kind="debian", missing={})
        narrator.say("without root no language tree is built: this machine's own programs are used", "yellow")
    if asked:
        choose_trees(session, asked)
    host = survey_host()
    here = tuple(r.language for r in host.tree.runtimes if r.language in wanted)
    missing = {name: fix for name, fix in host.missing.items() if name in wanted}
    narrator.say(f"host tree: {_listed([r for r in host.tree.runtimes if r.language in here])}")
    for name, fix in missing.items():
        narrator.say(f"{name} is not on this machine and left out; to have it: {fix}", "yellow")
    return _Plan(languages=here, tree_kind="host", missing=missing)


def _listed(runtimes: Sequence[Any]) -> str:
    return ", ".join(f"{runtime.language} {runtime.version}" for runtime in runtimes)


async def _until_stopped(session: Session, narrator: Narrator, plan: _Plan, *, use_anvil: bool) -> int:
    """Run the demonstration; a signal cancels it, and everything is taken down in order."""
    async with StopSignals() as stop:
        work = asyncio.create_task(_demonstrate(session, narrator, plan, use_anvil=use_anvil))
        signalled = asyncio.create_task(stop.requested.wait())
        await asyncio.wait((work, signalled), return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if not work.done():
            narrator.say("stopping: node and chain are taken down", "yellow")
            work.cancel()
            await asyncio.wait((work,))
            return ExitCode.INTERRUPTED
        return await work


async def _demonstrate(session: Session, narrator: Narrator, plan: _Plan, *, use_anvil: bool) -> int:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch_folder("blueprint-demo-"))
        stage = await _set_up(stack, session, narrator, plan, folder=folder, use_anvil=use_anvil)
        rows, contract_answer = await _run_cases(narrator, plan, stage)
        is_right = all(row.verdict.is_right for row in rows) and contract_answer.is_right
        for line in () if is_right else stage.node.complaints():
            narrator.say(f"the node's log: {line}", "yellow")
        narrator.say("stopping node and chain")
    narrator.say("stopped; no process and no file is left behind")
    _show(narrator, plan, stage, rows, contract_answer)
    return ExitCode.OK if is_right else ExitCode.FAILURE


async def _set_up(
    stack: AsyncExitStack, session: Session, narrator: Narrator, plan: _Plan, *, folder: Path, use_anvil: bool
) -> _Stage:
    """Start the chain, deploy the contracts, start the node; ``stack`` takes all of it down again."""
    chain = await stack.enter_async_context(opened_chain(use_anvil=use_anvil))
    narrator.say(f"{'anvil' if use_anvil else 'embedded chain'} {chain.chain_id} at {chain.ws_url}")
    rpc = await stack.enter_async_context(RpcClient(chain.ws_url))
    deployment, consumer = await deploy_on(chain, rpc)
    narrator.say(f"contracts deployed: tangle 0x{deployment.contract.hex()}, service {deployment.service_id}")
    narrator.say(f"example contract deployed: 0x{consumer.hex()}")
    arguments = [
        *("--rpc-url", chain.ws_url, "--contract", "0x" + deployment.contract.hex()),
        *("--service-ids", str(deployment.service_id), "--chain-id", str(chain.chain_id)),
        *("--state-dir", str(folder), "--trees-dir", str(session.trees_dir), "--tree", plan.tree_kind),
        *("--backend", session.settings.backend, "--allow-degraded", "all"),
        *("--http-port", "0", "--max-concurrent", str(_CONCURRENT), "--grace-s", "1", "--log-format", "json"),
    ]
    key = chain.accounts[OPERATOR].private_key
    node = await stack.enter_async_context(running_node(arguments, key=key, folder=folder))
    narrator.say(
        f"node started as process {node.process.pid} (blueprint run), {node.facts['url']}, "
        f"sandbox back end {node.facts['backend']}"
    )
    _tell_weaker(narrator, node.facts)
    caller = Signer(chain.accounts[CALLER].private_key)
    return _Stage(rpc=rpc, caller=caller, deployment=deployment, consumer=consumer, node=node)


async def _run_cases(narrator: Narrator, plan: _Plan, stage: _Stage) -> tuple[list[Row], ContractAnswer]:
    """Submit everything, the contract's own call as well, and collect the answers; fail if the node ends."""
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(stage.node.fail_when_it_ends())
        tasks = [
            group.create_task(_follow(narrator, stage, case, await _submit(narrator, stage, case)))
            for case in (*cases.language_cases(plan.languages), *cases.fault_cases())
        ]
        nonce = secrets.token_hex(8)
        source = cases.snippet(nonce)
        narrator.say("the example contract asks for a program itself: submitJob from a contract")
        contract_answer = await ask_contract(
            stage.rpc,
            stage.caller,
            stage.consumer,
            source,
            expected=nonce[::-1].encode(),
            timeout_s=_ANSWER_TIMEOUT_S,
        )
        shown = contract_answer.stdout.decode(errors="replace")
        narrator.say(
            f"its callback received {shown!r} with status {status_name(contract_answer.status)} "
            f"in block {contract_answer.block_number}",
            "green" if contract_answer.is_right else "red",
        )
        rows = [await task for task in tasks]
        watch.cancel()
    return rows, contract_answer


async def _submit(narrator: Narrator, stage: _Stage, case: cases.Case) -> CallKey:
    inputs = encode_request(case.request)
    key = await submit_job(stage.rpc, stage.caller, stage.deployment, EXECUTE_INDEX, inputs)
    narrator.say(f"submitted {case.name}: call {key.service_id}/{key.call_id}, {len(inputs)} bytes")
    return key


async def _follow(narrator: Narrator, stage: _Stage, case: cases.Case, key: CallKey) -> Row:
    """Wait for one answer and judge it."""
    found = await wait_result(stage.rpc, key, _ANSWER_TIMEOUT_S)
    answer = read_answer(found.output)
    verdict = cases.judge(case, answer, stage.node.facts["not_enforced"])
    took = "" if answer is None else f" after {time_text(answer.stats.wall_us / 1_000_000)} in the sandbox"
    narrator.say(
        f"answered {case.name} in block {found.block_number}{took}: {verdict.note}",
        "green" if verdict.is_right else "red",
    )
    return Row(case=case, found=found, answer=answer, verdict=verdict)


def _tell_weaker(narrator: Narrator, facts: dict[str, Any]) -> None:
    for name, reason in sorted(facts["not_enforced"].items()):
        narrator.say(f"not enforced: {name} ({reason})", "yellow")


def _show(
    narrator: Narrator, plan: _Plan, stage: _Stage, rows: list[Row], contract_answer: ContractAnswer
) -> None:
    facts = stage.node.facts
    wrong = sum(not row.verdict.is_right for row in rows)
    unproved = sum(not row.verdict.is_enforced for row in rows)
    counts = f"{len(rows) - wrong - unproved} of {len(rows)} answers are right"
    if unproved:
        counts += f", {unproved} proves nothing: its limit is not enforced here"
    callback = "received its answer" if contract_answer.is_right else "received a wrong answer"
    text = f"{counts}; the example contract's callback {callback}"
    body = {
        "answers": [row_json(row) for row in rows],
        "contract": contract_answer.as_json(),
        "backend": facts["backend"],
        "not_enforced": facts["not_enforced"],
        "tree": facts["trees"][0],
        "missing_languages": plan.missing,
        "is_right": not wrong and contract_answer.is_right,
    }
    style = "bold red" if not body["is_right"] else "bold yellow" if unproved else "bold green"
    narrator.show(body, Group(Text(""), ResultTable(rows), Text(""), Text(text, style=style)))
