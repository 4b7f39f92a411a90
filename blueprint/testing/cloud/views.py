"""How the fake cloud shows a machine, in the shapes of the versions of the API.

Invariant: a member has the type that the cloud's public SDK demands of it in that version.
"""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate

from blueprint.foreign_json import JsonValue
from blueprint.tee.simulator.cvm import SimulatedCvm
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.testing.cloud.checks import VERSIONS
from blueprint.testing.cloud.machine import FakeMachine
from blueprint.testing.cloud.sizes import DISK_GB, SIZES

__all__ = [
    "FIRST_VERSION",
    "account_view",
    "app_view",
    "attestation_view",
    "composition_view",
    "instance_type_view",
    "kms_view",
    "machine_view",
    "network_view",
    "state_view",
    "stats_view",
    "vm_view",
]

FIRST_VERSION = VERSIONS[0]
_CREATED = "2026-01-01T00:00:00Z"
_GIB = 1024**3


def account_view(version: str) -> dict[str, JsonValue]:
    """Whom a key belongs to."""
    person: dict[str, JsonValue] = {"username": "tester", "email": "tester@example.test", "avatar": ""}
    if version == FIRST_VERSION:
        return {**person, "credits": 1, "granted_credits": 0, "team_name": "test", "team_tier": "free"}
    flags = ("email_verified", "totp_enabled", "has_backup_codes", "flag_has_password")
    workspace: dict[str, JsonValue] = {
        "id": "ws_1",
        "name": "test",
        "slug": "test",
        "tier": "free",
        "role": "owner",
    }
    money: dict[str, JsonValue] = {
        "balance": "1.00",
        "granted_balance": "0",
        "is_post_paid": False,
        "outstanding_amount": None,
    }
    return {
        "user": {**person, "role": "user", **dict.fromkeys(flags, False)},
        "workspace": workspace,
        "credits": money,
    }


def instance_type_view(name: str, vcpu: int, memory_mb: int, hourly_rate: str) -> dict[str, JsonValue]:
    """A size that is offered."""
    return {
        "id": name,
        "name": name,
        "description": name,
        "vcpu": vcpu,
        "memory_mb": memory_mb,
        "hourly_rate": hourly_rate,
        "requires_gpu": False,
        "default_disk_size_gb": DISK_GB,
        "family": "cpu",
    }


def kms_view(kms: SimulatedKms) -> dict[str, JsonValue]:
    """A KMS."""
    return {
        "id": "kms_1",
        "slug": "phala",
        "url": "https://kms.test",
        "version": "v0.5.5",
        "chain_id": None,
        "kms_contract_address": None,
        "gateway_app_id": None,
        "k256_pubkey": kms.root_public_key.hex(),
    }


def _urls(machine: FakeMachine) -> list[JsonValue]:
    domain = "gateway.test"
    return [
        {
            "app": f"https://{machine.prepared.app_id}.{domain}",
            "instance": f"https://{machine.instance_id}.{domain}",
        }
    ]


def _size(machine: FakeMachine) -> tuple[JsonValue, JsonValue, JsonValue]:
    size = machine.prepared.size
    vcpu, memory, _ = SIZES[str(size.get("instance_type") or "tdx.small")]
    return size.get("vcpu") or vcpu, size.get("memory") or memory, machine.disk_gb


def vm_view(machine: FakeMachine) -> dict[str, JsonValue]:
    """The shape of the first version, which orders and lifecycle calls keep."""
    vcpu, memory, disk = _size(machine)
    return {
        "id": machine.number,
        "name": machine.prepared.name,
        "status": machine.status,
        "teepod_id": 1,
        "teepod": {"id": 1, "name": "node-1", "region_identifier": "test-1"},
        "user_id": 1,
        "app_id": machine.prepared.app_id,
        "vm_uuid": machine.vm_uuid,
        "instance_id": machine.instance_id or None,
        "app_url": None,
        "base_image": "dstack-0.5.5",
        "vcpu": vcpu,
        "memory": memory,
        "disk_size": disk,
        "instance_type": machine.prepared.size.get("instance_type"),
        "docker_compose_file": None,
        "created_at": _CREATED,
        "encrypted_env_pubkey": _public_key(machine),
        "syslog_endpoint": None,
        "public_urls": _urls(machine),
    }


def machine_view(machine: FakeMachine, version: str) -> dict[str, JsonValue]:
    """One machine."""
    if version == FIRST_VERSION:
        return vm_view(machine)
    vcpu, memory, disk = _size(machine)
    memory_mb = memory if isinstance(memory, int) else 2048
    return {
        "id": machine.cvm_id,
        "name": machine.prepared.name,
        "app_id": machine.prepared.app_id,
        "vm_uuid": machine.vm_uuid,
        "instance_id": machine.instance_id or None,
        "resource": {
            "instance_type": machine.prepared.size.get("instance_type"),
            "vcpu": vcpu,
            "memory_in_gb": memory_mb / 1024,
            "disk_in_gb": disk,
        },
        "node_info": {"object_type": "node", "id": 1, "name": "node-1", "region": "test-1"},
        "os": {"name": "dstack-0.5.5", "is_dev": False},
        "kms_type": "phala",
        "kms_info": {"chain_id": None, "encrypted_env_pubkey": _public_key(machine)},
        "status": machine.status,
        "compose_hash": machine.prepared.compose_hash,
        "gateway": {"base_domain": "gateway.test", "cname": None},
        "services": [],
        "endpoints": _urls(machine),
        "listed": False,
    }


def _public_key(machine: FakeMachine) -> str:
    return machine.kms.env_public_key(bytes.fromhex(machine.prepared.app_id)).hex()


def app_view(machine: FakeMachine, version: str) -> dict[str, JsonValue]:
    """An application with its machine, as the CLI lists it."""
    shown = machine_view(machine, version)
    return {
        "id": f"app_{machine.prepared.app_id}",
        "name": machine.prepared.name,
        "app_id": machine.prepared.app_id,
        "created_at": _CREATED,
        "kms_type": "phala",
        "current_cvm": shown,
        "cvms": [shown],
        "cvm_count": 1,
    }


def state_view(machine: FakeMachine) -> dict[str, JsonValue]:
    """How far a machine is; members that have nothing to say are left out."""
    told: dict[str, JsonValue] = {"name": machine.prepared.name, "status": machine.status}
    if machine.boot_error:
        told["boot_error"] = machine.boot_error
    if machine.instance_id:
        told["instance_id"] = machine.instance_id
    return told


def composition_view(machine: FakeMachine, base: str) -> dict[str, JsonValue]:
    """What runs inside."""
    is_public = machine.prepared.compose.get("public_logs") is True
    listed: list[JsonValue] = [
        {
            "id": f"{index:064x}",
            "names": [f"/dstack-{container.service}-1"],
            "image": "image",
            "image_id": "sha256:0",
            "created": 1,
            "state": container.state,
            "status": container.status,
            "log_endpoint": f"{base}/logs/{machine.vm_uuid}/{container.service}" if is_public else None,
        }
        for index, container in enumerate(machine.containers)
    ]
    return {
        "is_online": machine.is_online,
        "is_public": is_public,
        "error": None if machine.is_online else "the guest does not answer",
        "docker_compose_file": machine.prepared.compose["docker_compose_file"] if is_public else None,
        "manifest_version": 2,
        "version": "1.0.0",
        "runner": "docker-compose",
        "features": ["kms"],
        "containers": listed if machine.is_online else None,
    }


def stats_view(machine: FakeMachine) -> dict[str, JsonValue]:
    """What a machine uses."""
    info: dict[str, JsonValue] = {
        "total_memory": 2 * _GIB,
        "used_memory": _GIB,
        "uptime": 60,
        "disks": [{"name": "disk", "mount_point": "/", "total_size": 40 * _GIB, "free_size": 30 * _GIB}],
    }
    return {
        "is_online": machine.is_online,
        "is_public": True,
        "error": None,
        "sysinfo": info if machine.is_online else None,
    }


def network_view(machine: FakeMachine) -> dict[str, JsonValue]:
    """Where a machine is reached; the address inside is not told."""
    return {
        "is_online": machine.is_online,
        "is_public": True,
        "error": None,
        "internal_ip": None,
        "latest_handshake": None,
        "public_urls": _urls(machine),
    }


def _certificate_view(machine: FakeMachine, guest: SimulatedCvm) -> dict[str, JsonValue]:
    """The certificate that a quote is about, in the members that the cloud's public SDK lists."""
    certificate = load_pem_x509_certificate(guest.certificate.encode())
    name: dict[str, JsonValue] = {
        "common_name": machine.prepared.app_id,
        "organization": None,
        "country": None,
        "state": None,
        "locality": None,
    }
    return {
        "subject": name,
        "issuer": name,
        "serial_number": str(certificate.serial_number),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "version": "v3",
        "fingerprint": certificate.fingerprint(SHA256()).hex(),
        "signature_algorithm": "ecdsa-with-SHA256",
        "sans": None,
        "is_ca": False,
        "position_in_chain": 0,
        "quote": guest.certificate_quote().hex(),
        "app_id": machine.prepared.app_id,
        "cert_usage": "app_tls",
    }


def attestation_view(machine: FakeMachine, *, has_certificate_text: bool) -> dict[str, JsonValue]:
    """A machine's proof."""
    guest = machine.guest
    if guest is None or not machine.is_online:
        return {"is_online": False, "is_public": True, "error": "the guest does not answer"}
    certificate = _certificate_view(machine, guest)
    if has_certificate_text:
        certificate["pem"] = guest.certificate
    return {
        "name": machine.prepared.name,
        "is_online": True,
        "is_public": True,
        "error": None,
        "app_certificates": [certificate],
        "tcb_info": guest.tcb_info(),
        "compose_file": None,
    }
