"""Settings: where values come from, what is refused, and what the operator is told."""

import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from blueprint.errors import ConfigError
from blueprint.settings import ENV_PREFIX, Settings, parse_address
from blueprint.settings_sources import load_settings

CHECKSUMMED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


@pytest.fixture(autouse=True)
def _empty_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder without any variable of ours."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(ENV_PREFIX + name.upper(), raising=False)


def test_defaults_are_valid() -> None:
    """Without any source every setting has its default, and nothing has an origin."""
    loaded = load_settings({})
    assert (loaded.settings, loaded.origins, loaded.warnings) == (Settings(), {}, ())


def test_first_source_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag beats environment beats .env beats TOML beats default, setting by setting."""
    Path("blueprint.toml").write_text(
        "http_port = 1\nmax_concurrent = 11\ngrace_s = 1.5\nconfirmations = 9\n"
    )
    Path(".env").write_text("BLUEPRINT_HTTP_PORT=2\nBLUEPRINT_MAX_CONCURRENT=12\nBLUEPRINT_GRACE_S=2.5\n")
    monkeypatch.setenv("BLUEPRINT_HTTP_PORT", "3")
    monkeypatch.setenv("BLUEPRINT_MAX_CONCURRENT", "13")
    loaded = load_settings({"http_port": "4", "max_concurrent": None})
    found = loaded.settings
    assert (found.http_port, found.max_concurrent, found.grace_s, found.confirmations) == (4, 13, 2.5, 9)
    assert loaded.origins == {
        "http_port": "command line",
        "max_concurrent": "environment",
        "grace_s": ".env",
        "confirmations": "blueprint.toml",
    }


def test_named_toml_file_is_read(tmp_path: Path) -> None:
    """A TOML file that is named is read instead of the usual one."""
    path = tmp_path / "other.toml"
    path.write_text('service_ids = [1, 2]\nlanguages = ["python"]\n')
    assert load_settings({}, toml_file=path).settings.service_ids == (1, 2)


@pytest.mark.parametrize(
    ("text", "expected"), [("", ()), ("7", (7,)), ("1, 2,3", (1, 2, 3)), (str(2**64 - 1), (2**64 - 1,))]
)
def test_lists_are_split_at_commas(text: str, expected: tuple[int, ...]) -> None:
    """A list from the command line or the environment is its parts between commas, spaces dropped."""
    assert expected == load_settings({"service_ids": text}).settings.service_ids


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to nothing leaves the default."""
    monkeypatch.setenv("BLUEPRINT_HTTP_PORT", "")
    assert load_settings({}).settings.http_port == Settings().http_port


WRONG = [
    ("http_port", "abc", "valid integer"),
    ("http_port", "65536", "less than or equal to 65535"),
    ("rpc_url", "localhost:8545", "ws://"),
    ("rpc_url", "ws://", "ws://"),
    ("contract", "0x1234", "40 hexadecimal digits"),
    ("contract", CHECKSUMMED.replace("aA", "Aa"), "checksum"),
    ("service_ids", "1,x", "valid integer"),
    ("service_ids", "-1", "greater than or equal to 0"),
    ("service_ids", str(2**64), "less than"),
    ("backend", "slott", "'slot'"),
    ("limit_wall_time_s", "86401", "less than or equal to 86400"),
    ("limit_wall_time_s", "0", "greater than 0"),
    ("limit_wall_time_s", "nan", "less than or equal to 86400"),
    ("chain_id", "0", "greater than or equal to 1"),
    ("max_concurrent", "0", "greater than or equal to 1"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_wrong_value_names_flag_source_expectation_and_value(name: str, value: str, expected: str) -> None:
    """The error of a wrong flag names the flag, where it came from, what is expected and what came."""
    with pytest.raises(ConfigError) as caught:
        load_settings({name: value})
    message = str(caught.value)
    assert message.startswith(f"--{name.replace('_', '-')} (from command line): ")
    assert expected in message
    assert value in message
    assert "\n" not in message


def test_wrong_value_is_spelled_as_in_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, .env and TOML each spell a setting their own way, and so does the error."""
    Path("blueprint.toml").write_text("http_port = 'x'\n")
    with pytest.raises(ConfigError, match=r"^http_port \(from blueprint\.toml\)"):
        load_settings({})
    Path(".env").write_text("BLUEPRINT_HTTP_PORT=x\n")
    with pytest.raises(ConfigError, match=r"^BLUEPRINT_HTTP_PORT \(from \.env\)"):
        load_settings({})
    monkeypatch.setenv("BLUEPRINT_HTTP_PORT", "x")
    with pytest.raises(ConfigError, match=r"^BLUEPRINT_HTTP_PORT \(from environment\)"):
        load_settings({})


def test_secret_never_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is neither in the settings' text nor in the error about it."""
    monkeypatch.setenv("BLUEPRINT_PRIVATE_KEY", "planted-secret")
    settings = load_settings({}).settings
    assert settings.private_key == SecretStr("planted-secret")
    assert "planted-secret" not in repr(settings)
    with pytest.raises(ConfigError) as caught:
        load_settings({"keystore": "/some/file"})
    assert "keystore and private_key are both set" in str(caught.value)
    assert "planted-secret" not in str(caught.value)


TABLES = """
[egress.api]
allow = ["api.example.org:443", "*.example.org:8443"]
total_bytes = 1000
[registries.npm]
kind = "npm"
url = "https://npm.example.org/"
token = "planted-secret"
"""


def test_tables_of_the_network_are_read() -> None:
    """Policies and registries come as tables of the file, with secrets that do not show."""
    Path("blueprint.toml").write_text(TABLES)
    settings = load_settings({}).settings
    policy, registry = settings.egress["api"], settings.registries["npm"]
    assert (policy.allow, policy.total_bytes) == (("api.example.org:443", "*.example.org:8443"), 1000)
    assert (registry.url, registry.token) == ("https://npm.example.org/", SecretStr("planted-secret"))
    assert "planted-secret" not in repr(settings)


def test_tables_of_the_network_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without a file names its policies in JSON; what is no JSON is told."""
    monkeypatch.setenv("BLUEPRINT_EGRESS", '{"api": {"allow": ["a.test:1"]}}')
    assert load_settings({}).settings.egress["api"].allow == ("a.test:1",)
    monkeypatch.setenv("BLUEPRINT_EGRESS", "api=a.test:1")
    with pytest.raises(ConfigError, match=r"^BLUEPRINT_EGRESS \(from environment\): expecting value"):
        load_settings({})


@pytest.mark.parametrize("wrong", ["tokn = 'x'", "kind = 'cpan'", "private = 'maybe'"])
def test_wrong_key_of_a_table_is_named_without_its_secrets(wrong: str) -> None:
    """A mistyped key or value names table and key; the table's secrets are not repeated."""
    key = wrong.split(maxsplit=1)[0]
    lines = [line for line in TABLES.splitlines() if not line.startswith(f"{key} =")]
    Path("blueprint.toml").write_text("\n".join([*lines, wrong]))
    with pytest.raises(ConfigError, match=rf"^registries\.npm\.{key} \(from blueprint\.toml\)") as caught:
        load_settings({})
    assert "planted-secret" not in str(caught.value)


def test_mistyped_variable_is_a_warning_with_the_near_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with our prefix that is no setting is never dropped in silence."""
    monkeypatch.setenv("BLUEPRINT_SERVICE_ID", "4")
    (warning,) = load_settings({}).warnings
    assert "BLUEPRINT_SERVICE_ID is set" in warning
    assert "did you mean BLUEPRINT_SERVICE_IDS?" in warning


def test_unknown_toml_key_is_refused_with_the_near_name() -> None:
    """A key that is no setting in our own file is an error."""
    Path("blueprint.toml").write_text("htp_port = 1\n")
    with pytest.raises(ConfigError, match="did you mean http_port"):
        load_settings({})


@pytest.mark.parametrize("content", [b"not toml", b"\xff\xfe", None])
def test_unreadable_toml_is_a_config_error(tmp_path: Path, content: bytes | None) -> None:
    """A TOML file that is missing, no TOML, or no text is named with the reason."""
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.toml cannot be read"):
        load_settings({}, toml_file=path)


def test_contradictions_are_refused() -> None:
    """Two settings that exclude each other are named together."""
    with pytest.raises(ConfigError, match="outputs_item_max_bytes is larger"):
        load_settings({"outputs_item_max_bytes": "2000", "outputs_max_bytes": "1000"})


def test_settings_are_frozen() -> None:
    """Nothing can change a setting after the start."""
    with pytest.raises(ValidationError):
        Settings().http_port = 1  # type: ignore[misc]


def test_every_setting_says_what_it_is_and_numbers_say_their_unit() -> None:
    """Every setting has a description; a name that ends in a unit has it spelled out."""
    units = {"_s": "second", "_bytes": "byte", "_gwei": "gwei"}
    for name, field in Settings.model_fields.items():
        assert field.description, name
        for suffix, unit in units.items():
            if name.endswith(suffix) and name != "service_ids":
                assert unit in field.description.lower(), name


def test_toml_types_are_accepted() -> None:
    """What TOML writes as numbers, lists and strings arrives as such."""
    text = f'contract = "{CHECKSUMMED}"\nservice_ids = [3]\nrpc_url = "/run/node.ipc"\n'
    assert tomllib.loads(text)
    Path("blueprint.toml").write_text(text)
    settings = load_settings({}).settings
    assert settings.contract_address == bytes.fromhex(CHECKSUMMED[2:])
    assert (settings.service_ids, settings.rpc_url) == ((3,), "/run/node.ipc")


@pytest.mark.parametrize("text", [CHECKSUMMED, CHECKSUMMED.lower(), "0x" + CHECKSUMMED[2:].upper()])
def test_address_forms(text: str) -> None:
    """An address may be checksummed, all small or all capitals."""
    assert parse_address(text) == bytes.fromhex(CHECKSUMMED[2:])
