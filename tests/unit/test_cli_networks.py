"""The operator's tables of the network, as the sandbox takes them."""

import pytest

from blueprint.cli.networks import mirror_of, networks_of
from blueprint.errors import ConfigError
from blueprint.settings import Settings
from blueprint.settings_network import EgressSetting, RegistrySetting


def test_policy_becomes_a_way_out_for_each_run() -> None:
    """Each run gets a gateway of its own, by the policy's name."""
    networks = networks_of(Settings(egress={"api": EgressSetting(allow=("a.test:443",))}))
    first, second = networks["api"](), networks["api"]()
    assert first is not second
    assert (first.name, first.environment()["https_proxy"]) == ("api", f"http://127.0.0.1:{first.port}")


@pytest.mark.parametrize("pattern", ["a.test", "*:443", "*.test:443", "http://a.test:80", "a.test:0"])
def test_pattern_that_makes_no_sense_is_a_config_error(pattern: str) -> None:
    """A pattern that would name nothing, or everything, stops the command and is named with its policy."""
    with pytest.raises(ConfigError, match="egress policy api"):
        networks_of(Settings(egress={"api": EgressSetting(allow=(pattern,))}))


@pytest.mark.parametrize(
    "url", ["ftp://a.test/", "https://u:p@a.test/", "https://a.test/?x=1", "https://a.test/../x"]
)
def test_registry_that_makes_no_sense_is_a_config_error(url: str) -> None:
    """An address that the mirror could not keep to stops the command; the message does not repeat it."""
    with pytest.raises(ConfigError, match="registry inner: ") as caught:
        mirror_of(Settings(registries={"inner": RegistrySetting(kind="pypi", url=url)}))
    assert "u:p" not in str(caught.value)


def test_name_of_the_installations_gateway_is_taken() -> None:
    """A run's policy cannot be mistaken in a result for the mirror of an installation."""
    with pytest.raises(ConfigError, match="egress policy registries: .* choose another"):
        networks_of(Settings(egress={"registries": EgressSetting(allow=())}))
