"""A caller's side of the chain: a job call out, its answer in."""

from blueprint.chain.deployment import CallResult, Deployment, submit_job, wait_result
from blueprint.chain.wire import to_hex
from blueprint.cli.account import load_signer
from blueprint.cli.link import connected
from blueprint.cli.session import Session
from blueprint.errors import ConfigError, RevertedError
from blueprint.types import Address

__all__ = ["CALLER_SETTINGS", "submit_and_wait"]

CALLER_SETTINGS = (
    "rpc_url", "rpc_timeout_s", "chain_id", "contract", "service_ids",
    "keystore", "keystore_password_file", "private_key_file", "inputs_max_bytes",
)  # fmt: skip
"""The settings that a command of this kind reads."""


async def submit_and_wait(
    session: Session, job_index: int, inputs: bytes, *, watch: bool, wait_s: float, value_wei: int
) -> CallResult:
    """Submit a call to the one service that the settings name, and return its first answer.

    Args:
        session: names chain, contract, service and the account that pays.
        job_index: which job.
        inputs: of the call.
        watch: say each step.
        wait_s: the longest wait for the answer.
        value_wei: what the service charges.

    Raises:
        ConfigError: the inputs are too long, or no single service is named.
        ChainError: the chain cannot be reached, or the contract refuses the call.
        TimeoutError: nobody answered.
    """
    if len(inputs) > session.settings.inputs_max_bytes:
        raise ConfigError(
            f"the call takes {len(inputs)} bytes, at most {session.settings.inputs_max_bytes} are taken; "
            "send less, or let what runs fetch its data"
        )
    service_ids = session.settings.service_ids or (0,)
    if len(service_ids) > 1:
        raise ConfigError(f"--service-ids names {len(service_ids)} services; name the one to submit to")
    signer = load_signer(session)
    async with connected(session) as link:
        target = Deployment(
            chain_id=link.chain_id,
            contract=link.contract,
            manager=Address(bytes(20)),
            blueprint_id=0,
            service_id=service_ids[0],
            event_rate_wei=value_wei,
        )
        if watch:
            session.say(
                f"submitting {len(inputs)} bytes to service {service_ids[0]} on chain {link.chain_id}"
            )
        try:
            key = await submit_job(link.rpc, signer, target, job_index, inputs)
        except RevertedError as error:
            if error.data:
                raise
            raise RevertedError(
                f"contract {to_hex(link.contract)} refused the job without a reason ({error}); "
                "check that --contract is a job contract, and --service-ids"
            ) from error
        if watch:
            session.say(f"submitted: call {key.service_id}/{key.call_id}; waiting for the answer")
        found = await wait_result(link.rpc, key, wait_s, from_block=link.head_number)
        if watch:
            session.say(
                f"answered by 0x{found.operator.hex()} in block {found.block_number}, "
                f"transaction 0x{found.transaction_hash.hex()}"
            )
        return found
