"""What the chain says about the services that a node is to serve, checked before the node starts.

Invariant: a node starts only for services that are active and in which its account is an operator.
"""

from collections.abc import Mapping, Sequence

from blueprint.chain.protocol import (
    ServiceStatus,
    decode_bool,
    decode_get_blueprint_definition,
    decode_get_service,
    encode_get_blueprint_definition,
    encode_get_service,
    encode_is_service_operator,
)
from blueprint.chain.wire import JsonValue, parse_bytes, to_hex
from blueprint.cli.link import Link
from blueprint.errors import ConfigError, RevertedError
from blueprint.job import Handler, JobSchema
from blueprint.router import Router
from blueprint.types import Address, JobCall

__all__ = ["bind_services", "read_schemas"]


async def read_schemas(
    link: Link, service_ids: Sequence[int], operator: Address
) -> dict[int, dict[int, JobSchema]]:
    """Return, for each service, the schemas of its jobs by index.

    Raises:
        ConfigError: no services are named, one is not there or not active, or the account is no operator.
        RpcError: the end point failed.
    """
    if not service_ids:
        raise ConfigError("no services are named: give --service-ids 0, or set BLUEPRINT_SERVICE_IDS")
    return {service_id: await _read_service(link, service_id, operator) for service_id in service_ids}


def bind_services(
    router: Router, schemas: Mapping[int, Mapping[int, JobSchema]], *, max_inputs_bytes: int
) -> Handler:
    """Check the router against each service's schemas and return the handler of all their calls.

    Raises:
        RegistrationError: a service's schema does not match its handler, or cannot carry an error answer.
    """
    handlers = {
        service_id: router.bind(jobs, max_inputs_bytes=max_inputs_bytes)
        for service_id, jobs in schemas.items()
    }

    async def handle(call: JobCall) -> bytes:
        return await handlers[call.key.service_id](call)

    return handle


async def _read_service(link: Link, service_id: int, operator: Address) -> dict[int, JobSchema]:
    try:
        service = decode_get_service(await _ask(link, encode_get_service(service_id)))
        is_operator = decode_bool(await _ask(link, encode_is_service_operator(service_id, operator)))
        blueprint = decode_get_blueprint_definition(
            await _ask(link, encode_get_blueprint_definition(service.blueprint_id))
        )
    except RevertedError as error:
        raise ConfigError(
            f"service {service_id} cannot be read from contract {to_hex(link.contract)} ({error}); "
            "check --service-ids and --contract"
        ) from error
    if service.status is not ServiceStatus.ACTIVE:
        raise ConfigError(
            f"service {service_id} is {service.status.name.lower()}, only active ones are served"
        )
    if not is_operator:
        raise ConfigError(
            f"account {to_hex(operator)} is not an operator of service {service_id}; "
            "use the operator's key, or have the service's owner add this account"
        )
    return {
        index: JobSchema(params=job.params_schema, result=job.result_schema)
        for index, job in enumerate(blueprint.jobs)
    }


async def _ask(link: Link, data: bytes) -> bytes:
    call: JsonValue = {"to": to_hex(link.contract), "data": to_hex(data)}
    return parse_bytes(await link.rpc.call("eth_call", call, "latest"))
