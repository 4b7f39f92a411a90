"""The job that does nothing: what is left is the loop itself."""

from blueprint.router import Router
from blueprint.types import JobCall

router = Router()


@router.job(0, name="execute")
async def echo(call: JobCall) -> bytes:
    """Answer the inputs."""
    return call.inputs
