"""A router that gives back what it gets: the inputs of any call to job 0, as they are."""

from blueprint.extract import RawResult
from blueprint.layers import time_limit
from blueprint.router import Router
from blueprint.types import JobCall

router = Router()


@router.job(0, layers=[time_limit(5)])
async def echo(call: JobCall) -> RawResult:
    """Answer with the inputs; served only where the chain declares no schema."""
    return call.inputs
