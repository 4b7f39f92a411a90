"""A whole router. Serve it with ``blueprint run --router hello_job:router`` from this folder."""

from blueprint.errors import InputsInvalidError
from blueprint.extract import U64
from blueprint.router import Router

router = Router()


@router.job(0)
async def repeat(text: str, times: U64) -> str:
    """Give back a text a number of times."""
    if times > 100:
        raise InputsInvalidError(f"times: at most 100 is accepted, received {times}")
    return text * times
