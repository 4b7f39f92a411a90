"""``blueprint run``: builds the node out of its parts and runs it until a signal comes.

Invariant: everything that can be wrong with settings, key, chain, services and sandbox is found before the
first call is taken.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import click

from blueprint.chain.fees import FeePolicy
from blueprint.chain.listener import Listener
from blueprint.chain.signer import Signer
from blueprint.chain.submitter import Submitter, SubmitterPolicy
from blueprint.chain.wire import to_hex
from blueprint.cli.account import load_signer
from blueprint.cli.deploy.offer import Offer, offered, opened_offer
from blueprint.cli.deploy.place import VERIFY_SETTINGS
from blueprint.cli.link import Link, connected
from blueprint.cli.sandboxes import SANDBOX_SETTINGS, bounds_of, opened_sandbox
from blueprint.cli.services import bind_services, read_schemas
from blueprint.cli.session import Session, node_command
from blueprint.cli.signals import StopSignals
from blueprint.errors import ConfigError
from blueprint.http.outputs import OutputStore
from blueprint.http.server import HttpServer, Readiness
from blueprint.job import Handler
from blueprint.loader import load_router
from blueprint.node import Node, NodePolicy
from blueprint.router import Router
from blueprint.store.journal import Journal
from blueprint.types import Address
from jobs import build_router
from sandbox.scheduler import Scheduler

__all__ = ["command"]

_SETTINGS = (
    "rpc_url", "rpc_timeout_s", "chain_id", "contract", "service_ids", "start_block", "confirmations",
    "poll_interval_s", "max_fee_gwei", "keystore", "keystore_password_file", "private_key_file",
    "trees_dir", "router", "inputs_max_bytes", "grace_s",
    "max_concurrent", "max_waiting", "languages", *SANDBOX_SETTINGS,
    "http_host", "http_port", "http_allowed_hosts", "outputs_max_bytes", "outputs_item_max_bytes",
    *VERIFY_SETTINGS,
    "log_level", "log_format",
)  # fmt: skip
_GWEI = 10**9


@click.command("run", help="Run the node: follow a contract's job calls and answer each exactly once.")
@node_command(settings=_SETTINGS, logs=True)
def command(session: Session) -> int:
    """Run until SIGTERM or SIGINT; a second one ends it at once."""
    return asyncio.run(_run(session))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What does the jobs: the router's jobs, and what they hold."""

    router: Router
    facts: dict[str, Any]
    scheduler: Scheduler | None = None
    """What admits executions; None where the jobs are not ours."""
    offer: Offer | None = None
    """What is deployed for callers; None for nothing."""


async def _run(session: Session) -> int:
    offered(session)
    signer = load_signer(session)
    outputs = _open_outputs(session)
    async with StopSignals() as stop, connected(session) as link:
        schemas = await read_schemas(link, session.settings.service_ids, signer.address)
        async with _opened_work(session, outputs, signer.address) as work:
            limit = session.settings.inputs_max_bytes
            handler = bind_services(work.router, schemas, max_inputs_bytes=limit)
            journal = Journal(
                session.journal, chain_id=link.chain_id, contract=link.contract, operator=signer.address
            )
            with journal:
                policy = _policy(session.settings.grace_s, work.scheduler)
                node = _build_node(session, link, signer, journal, handler, policy=policy)
                facts = _facts(link, signer, session) | work.facts
                await _serve(session, node, outputs, stop, work=work, facts=facts)
    return stop.exit_code


def _open_outputs(session: Session) -> OutputStore:
    settings = session.settings
    try:
        session.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return OutputStore(
            session.state_dir / "outputs",
            max_bytes=settings.outputs_max_bytes,
            item_max_bytes=settings.outputs_item_max_bytes,
        )
    except OSError as error:
        raise ConfigError(
            f"cannot use the state folder {session.state_dir}: {error.strerror}; set --state-dir"
        ) from error


@asynccontextmanager
async def _opened_work(session: Session, outputs: OutputStore, operator: Address) -> AsyncIterator[_Work]:
    """Hand out the router: the built-in jobs over an executor, or the user's own."""
    settings = session.settings
    if settings.router != "jobs":
        yield _Work(router=load_router(settings.router), facts={"router": settings.router})
        return
    async with (
        opened_sandbox(session) as sandbox,
        opened_offer(session, operator=operator, evidence=outputs) as offer,
    ):
        facts = {
            "router": "jobs",
            "backend": sandbox.guarantees.backend,
            "not_enforced": dict(sandbox.guarantees.not_enforced),
            "trees": [{"kind": tree.kind, "digest": tree.digest} for tree in sandbox.trees],
            "runtimes": [
                {"language": runtime.language, "version": runtime.version}
                for runtime in sandbox.executor.runtimes()
            ],
            "deployments": None if offer is None else {"place": offer.place},
        }
        router = build_router(
            sandbox.executor,
            outputs,
            limits=bounds_of(settings).run,
            deploys=None if offer is None else offer.job,
        )
        yield _Work(router=router, facts=facts, scheduler=sandbox.scheduler, offer=offer)


def _policy(grace_s: float, scheduler: Scheduler | None) -> NodePolicy:
    """Let the node start every call for which there is a place to run or to wait, and some more.

    Whose turn it is, the scheduler knows and the journal does not: a caller with few calls must not wait in
    the journal behind one with many.
    """
    usual = NodePolicy(grace_s=grace_s)
    if scheduler is None:
        return usual
    return replace(usual, max_running=scheduler.max_waiting + usual.max_running)


def _build_node(
    session: Session, link: Link, signer: Signer, journal: Journal, handler: Handler, *, policy: NodePolicy
) -> Node:
    settings = session.settings
    listener = Listener(
        link.rpc,
        contract=link.contract,
        chain_id=link.chain_id,
        service_ids=settings.service_ids,
        window=journal.window(),
        start_block=link.head_number if settings.start_block is None else settings.start_block,
        poll_s=settings.poll_interval_s,
    )
    submitter = Submitter(
        link.rpc,
        ledger=journal,
        signer=signer,
        chain_id=link.chain_id,
        contract=link.contract,
        policy=SubmitterPolicy(confirmations=settings.confirmations),
        fees=FeePolicy(max_fee_cap_wei=round(settings.max_fee_gwei * _GWEI)),
    )
    return Node(
        rpc=link.rpc, listener=listener, journal=journal, submitter=submitter, handler=handler, policy=policy
    )


async def _serve(
    session: Session,
    node: Node,
    outputs: OutputStore,
    stop: StopSignals,
    *,
    work: _Work,
    facts: dict[str, Any],
) -> None:
    settings, scheduler = session.settings, work.scheduler
    server = HttpServer(
        host=settings.http_host,
        port=settings.http_port,
        readiness=lambda: _readiness(node, work),
        outputs=outputs,
        allowed_hosts=settings.http_allowed_hosts,
    )
    async with server, asyncio.TaskGroup() as group:
        running = group.create_task(node.run(), name="node")
        beside = [group.create_task(_stop_on_signal(stop, node, scheduler, settings.grace_s), name="signals")]
        if work.offer is not None:
            beside.append(group.create_task(work.offer.keep_house(), name="house-keeping"))
        if settings.start_block is None:  # else the place may lie in the future
            placed = group.create_task(node.wait_placed(), name="place")
            await asyncio.wait((running, placed), return_when=asyncio.FIRST_COMPLETED)
            placed.cancel()
        session.emit({**facts, "url": server.url}, f"node at {server.url}")
        session.suggest(f"blueprint status --url {server.url}")
        await running
        for task in beside:
            task.cancel()


async def _stop_on_signal(stop: StopSignals, node: Node, scheduler: Scheduler | None, grace_s: float) -> None:
    """Let what runs end within the grace period; what waits for a place goes back to the journal at once."""
    await stop.requested.wait()
    node.request_stop()
    if scheduler is not None:
        await scheduler.drain(grace_s)


async def _readiness(node: Node, work: _Work) -> Readiness:
    is_ready = await node.is_ready()
    health = node.health()
    reason = ""
    if not is_ready:
        if health.is_stopping or not health.is_running:
            reason = "the node is stopping" if health.is_stopping else "the node has not started"
        elif health.cursor is None or health.head is None:
            reason = "no block has been read yet"
        else:
            behind = max(0, health.head - health.cursor)
            reason = f"{behind} blocks behind" if behind else "the chain's end point does not answer"
    return Readiness(
        is_ready=is_ready,
        reason=reason,
        details={
            "cursor": health.cursor,
            "head": health.head,
            "running": health.running,
            "in_flight": health.in_flight,
            "calls": {state.value: count for state, count in health.calls.items()},
            "executions": None if work.scheduler is None else asdict(work.scheduler.load),
            "deployments": None if work.offer is None else work.offer.load(),
        },
    )


def _facts(link: Link, signer: Signer, session: Session) -> dict[str, Any]:
    return {
        "chain_id": link.chain_id,
        "contract": to_hex(link.contract),
        "service_ids": list(session.settings.service_ids),
        "operator": to_hex(signer.address),
        "state_dir": str(session.state_dir),
    }
