"""Registered job handlers: decode, do, encode."""

from blueprint.router import Router
from jobs.deploy.handler import DeployJob, add_deploy
from jobs.execute import OutputStore, add_execute
from sandbox.executor import Executor
from sandbox.request import Limits

__all__ = ["build_router"]


def build_router(
    executor: Executor,
    outputs: OutputStore | None = None,
    *,
    limits: Limits | None = None,
    deploys: DeployJob | None = None,
) -> Router:
    """Return a router with every job of this project.

    Args:
        executor: runs the programs of `execute`.
        outputs: keeps whole outputs by digest; None to keep none.
        limits: the operator's limits on one execution; the defaults of `Limits` if None.
        deploys: answers the calls of `deploy`; None to reject them all.
    """
    router = Router()
    add_execute(router, executor, outputs=outputs, limits=limits)
    add_deploy(router, deploys)
    return router
