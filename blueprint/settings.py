"""Every setting of the node: name, type, unit and default; `blueprint.settings_sources` says where from.

Invariant: a `Settings` that exists is complete and consistent; it never changes.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import override

from blueprint.settings_deployment import OfferSetting
from blueprint.settings_field import (
    end_point,
    listed,
    parse_address,
    public_key,
    read_address,
    setting,
    table,
)
from blueprint.settings_network import EgressSetting, RegistrySetting
from blueprint.types import Address

__all__ = ["ENV_PREFIX", "Settings", "parse_address", "setting_group"]

ENV_PREFIX = "BLUEPRINT_"
KIB = 1024
MIB = 1024 * KIB


_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(listed)]
_Numbers = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**64)], ...], NoDecode, BeforeValidator(listed)]
_Policies = Annotated[dict[str, EgressSetting], NoDecode, BeforeValidator(table)]
_Registries = Annotated[dict[str, RegistrySetting], NoDecode, BeforeValidator(table)]
_Offer = Annotated[OfferSetting | None, NoDecode, BeforeValidator(table)]
_PublicKeys = Annotated[
    tuple[Annotated[str, AfterValidator(public_key)], ...], NoDecode, BeforeValidator(listed)
]
_Images = Annotated[
    tuple[Annotated[str, StringConstraints(pattern="^[0-9a-f]{96}(:[0-9a-f]{96}){3}$")], ...],
    NoDecode,
    BeforeValidator(listed),
]
_AddressValue = Annotated[bytes, BeforeValidator(read_address)]


class Settings(BaseSettings):
    """The settings of one node."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False
    )

    rpc_url: Annotated[str, BeforeValidator(end_point)] = setting(
        "Chain",
        "ws://127.0.0.1:8545",
        "JSON-RPC end point: ws(s)://, http(s)://, ipc:///path or a path ending in .ipc.",
    )
    rpc_timeout_s: float = setting(
        "Chain", 10.0, "Longest wait for one JSON-RPC answer, in seconds.", gt=0, le=300
    )
    chain_id: int | None = setting(
        "Chain",
        None,
        "Chain id that the end point must report; unset accepts whatever it reports.",
        ge=1,
        lt=2**64,
    )
    contract: _AddressValue | None = setting(
        "Chain", None, "Address of the Tangle contract, 0x and 40 hexadecimal digits."
    )
    service_ids: _Numbers = setting("Chain", (), "Service ids to serve, separated by commas.")
    start_block: int | None = setting(
        "Chain", None, "Block number to start at when the journal is new; unset starts at the head.", ge=0
    )
    confirmations: int = setting(
        "Chain",
        0,
        "Blocks that must follow a call's block before its answer is sent; above 0 on chains with forks.",
        ge=0,
        le=1024,
    )
    poll_interval_s: float = setting(
        "Chain",
        0.5,
        "Longest wait between two looks at the head, in seconds; new-head events come sooner.",
        gt=0,
        le=60,
    )
    max_fee_gwei: float = setting("Chain", 500.0, "Highest fee per gas that a result may bid, in gwei.", gt=0)

    keystore: Path | None = setting(
        "Key", None, "Encrypted keystore (version 3) file with the operator's key."
    )
    keystore_password: SecretStr | None = setting("Key", None, "Password of the keystore.")
    keystore_password_file: Path | None = setting(
        "Key", None, "File whose first line is the keystore's password."
    )
    private_key: SecretStr | None = setting("Key", None, "Operator's private key, 64 hexadecimal digits.")
    private_key_file: Path | None = setting(
        "Key", None, "File that holds the operator's private key as 64 hexadecimal digits."
    )

    state_dir: Path | None = setting(
        "Node",
        None,
        "Folder of the journal, outputs, keys and language trees; "
        "unset: /var/lib/tee-job-node as root, else $XDG_DATA_HOME/tee-job-node.",
    )
    trees_dir: Path | None = setting(
        "Node", None, "Folder whose `trees` several nodes share; unset: the state folder."
    )
    router: str = setting(
        "Node", "jobs", "What serves the jobs: `jobs` (built in) or `package.module:router`.", min_length=1
    )
    max_concurrent: int | None = setting(
        "Node",
        None,
        "Most executions at the same time; unset: as many as memory and CPUs can hold.",
        ge=1,
        le=1024,
    )
    max_waiting: int = setting(
        "Node",
        256,
        "Most executions that wait for a place; calls beyond them wait in the journal.",
        ge=1,
        le=10_000,
    )
    memory_reserve_bytes: int = setting(
        "Node",
        256 * MIB,
        "Bytes of memory left to the rest of the machine; executions may reserve what else it has.",
        ge=0,
    )
    executions_per_cpu: float = setting(
        "Node", 2.0, "Executions at the same time for each CPU that the node may use.", gt=0, le=64
    )
    inputs_max_bytes: int = setting(
        "Node",
        96 * KIB,
        "Largest inputs of a call, in bytes; larger ones are answered as rejected.",
        ge=1,
        le=16 * MIB,
    )
    grace_s: float = setting(
        "Node", 30.0, "Time for running calls to finish after the first SIGTERM, in seconds.", ge=0, le=3600
    )

    backend: Literal["auto", "slot", "bubblewrap", "gvisor"] = setting(
        "Sandbox",
        "auto",
        "What isolates executions: `slot` (root), `bubblewrap` (any account), `gvisor` (root, experimental); "
        "`auto`: `slot` as root, else `bubblewrap`.",
    )
    allow_degraded: _Names = setting(
        "Sandbox",
        (),
        "Guarantees that may be missing, separated by commas; the node refuses to start when any other is.",
    )
    tree: Literal["auto", "debian", "host"] = setting(
        "Sandbox",
        "auto",
        "Language tree: `debian` (built by `blueprint runtimes build`), `host` (this machine's /usr), "
        "or `auto`: the first that exists.",
    )
    languages: _Names = setting(
        "Sandbox", (), "Languages to offer, separated by commas; empty offers all that the tree has."
    )
    limit_wall_time_s: float = setting(
        "Sandbox", 300.0, "Most wall-clock time of a run, in seconds.", gt=0, le=86_400
    )
    limit_cpu_time_s: float = setting(
        "Sandbox", 300.0, "Most CPU time of a run, in seconds.", gt=0, le=1_000_000
    )
    limit_memory_bytes: int = setting(
        "Sandbox", 512 * MIB, "Most memory of one execution, in bytes.", ge=16 * MIB
    )
    limit_disk_bytes: int = setting(
        "Sandbox", 100 * MIB, "Most bytes written to disk by one execution.", ge=MIB
    )
    limit_inodes: int = setting("Sandbox", 10_000, "Most files and folders of one execution.", ge=16)
    limit_file_size_bytes: int = setting(
        "Sandbox", 10 * MIB, "Largest single file that a program may write, in bytes.", ge=KIB
    )
    limit_output_bytes: int = setting(
        "Sandbox", MIB, "How much of stdout, and of stderr, is kept, in bytes; the rest is counted.", ge=KIB
    )
    limit_processes: int = setting(
        "Sandbox", 10, "Most processes of one program at the same time.", ge=1, le=4096
    )
    compile_wall_time_s: float = setting(
        "Sandbox", 120.0, "Most wall-clock time of compiling, in seconds.", gt=0, le=3600
    )
    compile_memory_bytes: int = setting(
        "Sandbox", 1024 * MIB, "Most memory of compiling, in bytes.", ge=16 * MIB
    )
    install_wall_time_s: float = setting(
        "Sandbox", 240.0, "Most wall-clock time of installing dependencies, in seconds.", gt=0, le=3600
    )
    install_memory_bytes: int = setting(
        "Sandbox",
        2048 * MIB,
        "Most memory of installing dependencies, in bytes; what is written counts as memory.",
        ge=64 * MIB,
    )
    install_disk_bytes: int = setting(
        "Sandbox", 1024 * MIB, "Most bytes written by installing dependencies.", ge=MIB
    )
    request_deadline_s: float = setting(
        "Sandbox",
        600.0,
        "Most wall-clock time of all stages of one execution together, in seconds.",
        gt=0,
        le=172_800,
    )

    layers_dir: Path | None = setting(
        "Sandbox", None, "Folder of installed dependencies; `layers` beside the language trees by default."
    )
    layers_max_bytes: int = setting(
        "Sandbox",
        10 * 1024 * MIB,
        "Room for installed dependencies on disk, in bytes; the least recently used go first.",
        ge=0,
    )
    layers_max_age_s: float = setting(
        "Sandbox",
        604_800.0,
        "How long installed dependencies are used before ranges are resolved anew, in seconds.",
        ge=0,
    )
    egress: _Policies = setting(
        "Network",
        {},
        "Egress policies by name: tables `[egress.NAME]` in blueprint.toml, or JSON; empty allows none.",
    )
    registries: _Registries = setting(
        "Network",
        {},
        "Package registries by name: tables `[registries.NAME]` in blueprint.toml, or JSON; "
        "of a kind that has none here, those of this host's own tools.",
    )

    place: Literal["phala", "local"] | None = setting(
        "Deployment",
        None,
        "Where applications are deployed: `phala` (the cloud) or `local` (a Docker engine on this machine, "
        "for development).",
    )
    cloud_api_key: SecretStr | None = setting("Deployment", None, "API key of the cloud's workspace.")
    cloud_api_key_file: Path | None = setting(
        "Deployment", None, "File whose first line is the API key of the cloud's workspace."
    )
    cloud_url: str | None = setting(
        "Deployment", None, "Address of the cloud's API; unset: its public one.", pattern="https?://.+"
    )
    cloud_proxy: SecretStr | None = setting(
        "Deployment", None, "HTTP proxy on the way to the cloud, with credentials where it wants them."
    )
    cloud_timeout_s: float = setting(
        "Deployment",
        30.0,
        "Longest silence of the cloud's API, in seconds; an exchange may take ten times as long.",
        gt=0,
        le=600,
    )
    ready_timeout_s: float = setting(
        "Deployment",
        600.0,
        "Longest wait until all containers of an application are up and healthy, in seconds.",
        gt=0,
        le=86_400,
    )
    kms_key: _PublicKeys = setting(
        "Deployment",
        (),
        "KMS keys to believe (secp256k1, 33 bytes in hexadecimal digits), separated by commas; empty: the "
        "first that is seen is believed, recorded and announced.",
    )
    key_provider: _Names = setting(
        "Deployment",
        (),
        "Key providers that an attestation may name: NAME:ID (`kms:...`), separated by commas; empty: any.",
    )
    os_image: _Images = setting(
        "Deployment",
        (),
        "Guest systems that an attestation may show: MRTD:RTMR0:RTMR1:RTMR2, 96 hexadecimal digits each, "
        "separated by commas; empty: any, and then it proves nothing against who chose the system.",
    )
    tcb_status: _Names = setting(
        "Deployment", ("UpToDate",), "TCB statuses of platforms to accept, in Intel's words."
    )
    tcb_advisory: _Names = setting(
        "Deployment", (), "Intel's advisories to accept although they apply, separated by commas."
    )
    pccs_url: str | None = setting(
        "Deployment",
        None,
        "Service with Intel's statements about platforms (PCCS); unset: a public one.",
        pattern="https?://.+",
    )
    trust_development_root: bool = setting(
        "Deployment",
        default=False,
        description="Believe attestations of the simulated platform of the local place: for development.",
    )
    deploy: _Offer = setting(
        "Deployment",
        None,
        "What the node deploys for callers on the chain: a table `[deploy]` in blueprint.toml, or JSON; "
        "unset: nothing.",
    )

    http_host: str = setting("HTTP", "127.0.0.1", "Address that the HTTP server listens on.", min_length=1)
    http_port: int = setting("HTTP", 8547, "Port of the HTTP server; 0 takes a free one.", ge=0, le=65535)
    http_allowed_hosts: _Names = setting(
        "HTTP", (), "Names besides the loopback ones that a Host header may have, separated by commas."
    )
    outputs_max_bytes: int = setting(
        "HTTP",
        1024 * MIB,
        "Room for whole outputs on disk, in bytes; the least recently used go first.",
        ge=0,
    )
    outputs_item_max_bytes: int = setting(
        "HTTP", 16 * MIB, "Largest single output that is kept, in bytes.", ge=0
    )

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "Log", "info", "Least level that is logged."
    )
    log_format: Literal["auto", "console", "json"] = setting(
        "Log", "auto", "How log lines look; `auto`: console on a terminal, JSON otherwise."
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.keystore and (self.private_key or self.private_key_file):
            raise ValueError("keystore and private_key are both set: keep one")
        if self.private_key and self.private_key_file:
            raise ValueError("private_key and private_key_file are both set: keep one")
        if self.outputs_item_max_bytes > self.outputs_max_bytes:
            raise ValueError(
                "outputs_item_max_bytes is larger than outputs_max_bytes: lower one or raise the other"
            )
        return self

    @property
    def contract_address(self) -> Address | None:
        """The contract as an address."""
        return None if self.contract is None else Address(self.contract)

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing but the arguments: `load_settings` has merged the sources."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def setting_group(name: str) -> str:
    """Return the heading under which a setting is documented."""
    extra = Settings.model_fields[name].json_schema_extra
    return str(extra["group"]) if isinstance(extra, dict) else "Other"
