"""Turns the operator's tables into what the sandbox knows: egress policies and package registries.

Invariant: a table that makes no sense stops the command before anything runs, and is named.
"""

from collections.abc import Callable, Mapping
from functools import partial

from blueprint.errors import ConfigError
from blueprint.settings import Settings
from blueprint.settings_network import EgressSetting, RegistrySetting
from sandbox.egress.mirror import Mirror, MirrorSession
from sandbox.egress.policy import EgressBounds, EgressPolicy, PolicyConfigError
from sandbox.egress.proxy import EgressProxy
from sandbox.egress.registry import Credentials, Registry, RegistryConfigError, RegistryKind
from sandbox.egress.tools import registries_of_host
from sandbox.executor import RunNetwork

__all__ = ["mirror_of", "networks_of"]


def networks_of(settings: Settings) -> Mapping[str, Callable[[], RunNetwork]]:
    """Return, by name, what makes one run's way out by each egress policy.

    Raises:
        ConfigError: a policy makes no sense.
    """
    if MirrorSession.name in settings.egress:
        raise ConfigError(
            f"egress policy {MirrorSession.name}: results use this name for installations; choose another"
        )
    try:
        policies = [_policy(name, table) for name, table in settings.egress.items()]
    except PolicyConfigError as error:
        raise ConfigError(str(error)) from error
    return {policy.name: partial(EgressProxy, policy) for policy in policies}


def mirror_of(settings: Settings) -> Mirror:
    """Return the mirror of the configured registries, and of those that this host's tools use.

    Raises:
        ConfigError: a registry makes no sense.
    """
    try:
        registries = [_registry(name, table) for name, table in settings.registries.items()]
        return Mirror(registries, of_host=registries_of_host)
    except RegistryConfigError as error:
        raise ConfigError(str(error)) from error


def _policy(name: str, table: EgressSetting) -> EgressPolicy:
    bounds = EgressBounds(connections=table.connections, total_bytes=table.total_bytes)
    return EgressPolicy(name=name, allow=table.allow, bounds=bounds)


def _registry(name: str, table: RegistrySetting) -> Registry:
    token, password = table.token.get_secret_value(), table.password.get_secret_value()
    has_login = bool(token or table.username)
    return Registry(
        name=name,
        kind=RegistryKind(table.kind),
        base_url=table.url,
        download_hosts=table.download_hosts,
        credentials=Credentials(token=token, username=table.username, password=password)
        if has_login
        else None,
        is_private=table.private,
        scope=table.scope,
        ca_file=str(table.ca_file or ""),
    )
