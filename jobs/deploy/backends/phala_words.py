"""Translates between the cloud's words and those of the ports.

Invariant: a word that is not known becomes UNKNOWN with the word kept, never a guess.
"""

import json
import re
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from blueprint.errors import AttestorUnavailableError, PolicyViolationError
from blueprint.foreign_json import JsonValue, parse_json
from jobs.deploy.backends.backend import (
    Container,
    Evidence,
    Health,
    Machine,
    MachineState,
    Placement,
    Provision,
    PublicKey,
    Stats,
    Workload,
)
from jobs.deploy.cloud.errors import CloudProtocolError, Complaint, UnknownChoiceError
from jobs.deploy.cloud.models import (
    Attestation,
    Certificate,
    ContainerInfo,
    Cvm,
    CvmState,
    InstanceType,
    Provisioned,
    SystemStats,
)
from jobs.deploy.errors import DeployError

__all__ = [
    "app_id_of",
    "check_size",
    "compose_object",
    "container_of",
    "evidence_of",
    "hex_bytes",
    "machine_of",
    "moved",
    "node_number",
    "price_of",
    "provision_of",
    "resources_of",
    "stats_of",
]

_STATES = {
    "creating": MachineState.STARTING,
    "provisioning": MachineState.STARTING,
    "pending": MachineState.STARTING,
    "starting": MachineState.STARTING,
    "restarting": MachineState.STARTING,
    "updating": MachineState.STARTING,
    "running": MachineState.RUNNING,
    "stopping": MachineState.STOPPING,
    "shutting_down": MachineState.STOPPING,
    "deleting": MachineState.STOPPING,
    "stopped": MachineState.STOPPED,
    "exited": MachineState.STOPPED,
    "terminated": MachineState.STOPPED,
    "deleted": MachineState.STOPPED,
    "error": MachineState.FAILED,
    "failed": MachineState.FAILED,
}
_APP_ID = re.compile(r"(?:app_|0x)?([0-9a-fA-F]{40})")
_PROJECT_NAME = re.compile(r"/?dstack-(.+)-\d+")
_EXITED = re.compile(r"Exited \((\d{1,9})\)")
_MB_PER_GB = 1024
_UNTOLD = 1 << 62
"""A size that the cloud does not tell is not judged."""


def hex_bytes(text: str, length: int, what: str) -> bytes:
    """Return the bytes of hexadecimal digits that the cloud sent.

    Raises:
        CloudProtocolError: they are none, or not so many.
    """
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != length:
        raise CloudProtocolError(Complaint(request=what, text=f"not {length} bytes in hexadecimal"))
    return value


def app_id_of(text: str | None) -> str:
    """Return 40 lower-case digits, or an empty string where an id is still missing.

    Raises:
        CloudProtocolError: it is something else.
    """
    if not text:
        return ""
    found = _APP_ID.fullmatch(text)
    if found is None:
        raise CloudProtocolError(Complaint(request="an app id", text=f"{text[:64]!r} is not 40 digits"))
    return found[1].lower()


def compose_object(workload: Workload) -> dict[str, JsonValue]:
    """Return app-compose.json as the object that the API takes; the cloud makes its own bytes of it."""
    value = parse_json(workload.app_compose)
    if not isinstance(value, dict):
        raise DeployError("app-compose.json is not a JSON object", advice="make it again")
    return value


def resources_of(placement: Placement) -> dict[str, JsonValue]:
    """Return the members of a request that state a size."""
    stated: Mapping[str, JsonValue] = {
        "instance_type": placement.instance_type or None,
        "vcpu": placement.vcpu,
        "memory": placement.memory_mb,
        "disk_size": placement.disk_gb,
    }
    return {name: value for name, value in stated.items() if value is not None}


def node_number(node: str) -> int | str:
    """Return a node's id as a request states it: a number, unless this version of the API has others."""
    return int(node) if node.isascii() and node.isdigit() else node


def price_of(instance_type: str, sizes: Sequence[InstanceType]) -> str:
    """Return what a size costs, or an empty string where the cloud does not say."""
    rates = (size.hourly_rate for size in sizes if size.id == instance_type and size.hourly_rate)
    return next((f"{rate} USD/h" for rate in rates), "")


def check_size(wanted: Placement, sizes: Sequence[InstanceType]) -> None:
    """Find a size that no instance type has, or a disk smaller than comes with it; what is not told may be.

    Raises:
        UnknownChoiceError: it names what is offered.
    """
    offered = [size for size in sizes if wanted.instance_type in ("", size.id)]
    fitting = [
        size
        for size in offered
        if (wanted.vcpu or 0) <= (size.vcpu or _UNTOLD)
        and (wanted.memory_mb or 0) <= (size.memory_mb or _UNTOLD)
    ]
    least_gb = min((size.default_disk_size_gb or 0 for size in fitting), default=0)
    if offered and not fitting:
        asked = f"{wanted.vcpu or 'any'} vCPU and {wanted.memory_mb or 'any'} MB of memory"
    elif wanted.disk_gb is not None and wanted.disk_gb < least_gb:
        asked = f"a disk of {wanted.disk_gb} GB"
    else:
        return
    shown = ", ".join(
        f"{size.id} ({size.vcpu or '?'} vCPU, {size.memory_mb or '?'} MB, disk from "
        f"{size.default_disk_size_gb or '?'} GB)"
        for size in offered
    )
    raise UnknownChoiceError(
        Complaint(request="looking up the size", text=f"nothing has {asked}; offered: {shown}")
    )


def provision_of(answer: Provisioned, key: PublicKey | None, *, price: str = "") -> Provision:
    """Return what was prepared."""
    image = answer.os_image_hash
    return Provision(
        app_id=app_id_of(answer.app_id),
        compose_hash=hex_bytes(answer.compose_hash, 32, "the provisioned compose hash"),
        public_key=key,
        os_image_hash=hex_bytes(image, 32, "the provisioned OS image hash") if image else b"",
        instance_type=answer.instance_type or "",
        price=price,
    )


def machine_of(cvm: Cvm) -> Machine:
    """Return a machine, from the shape of any version.

    Raises:
        CloudProtocolError: nothing in it addresses the machine.
    """
    inner = cvm.hosted
    ref = cvm.vm_uuid or (inner and inner.id) or cvm.id
    if not ref:
        raise CloudProtocolError(Complaint(request="a machine", text="the answer names no id"))
    error = inner.boot_error if inner else None
    urls = [url for pair in cvm.public_urls or () for url in (pair.app, pair.instance) if url]
    return Machine(
        id=ref,
        name=cvm.name or "",
        app_id=app_id_of(cvm.app_id or (inner.app_id if inner else None)),
        instance_id=cvm.instance_id or (inner and inner.instance_id) or "",
        state=MachineState.FAILED if error else _STATES.get(cvm.status.lower(), MachineState.UNKNOWN),
        said=error or cvm.status,
        compose_hash=hex_bytes(cvm.compose_hash, 32, "the compose hash") if cvm.compose_hash else b"",
        endpoints=tuple(dict.fromkeys(urls)),
        placement=_placement_of(cvm),
    )


def _placement_of(cvm: Cvm) -> Placement:
    size, node = cvm.resource, cvm.node
    memory_mb = cvm.memory
    if size and size.memory_in_gb is not None:
        memory_mb = round(size.memory_in_gb * _MB_PER_GB)
    return Placement(
        instance_type=(size and size.instance_type) or cvm.instance_type or "",
        vcpu=(size and size.vcpu) or cvm.vcpu,
        memory_mb=memory_mb,
        disk_gb=(size and size.disk_in_gb) or cvm.disk_size,
        image=(cvm.os and cvm.os.name) or cvm.base_image or "",
        node=(node and node.id) or "",
        region=(node and node.region) or "",
    )


def moved(machine: Machine, state: CvmState) -> Machine:
    """Return the machine in a state that was told later."""
    word = _STATES.get(state.status.lower(), MachineState.UNKNOWN)
    return Machine(
        id=machine.id,
        name=machine.name,
        app_id=machine.app_id,
        instance_id=state.instance_id or machine.instance_id,
        state=MachineState.FAILED if state.boot_error else word,
        said=state.boot_error or state.boot_progress or state.shutdown_progress or state.status,
        compose_hash=machine.compose_hash,
        endpoints=machine.endpoints,
        placement=machine.placement,
    )


def container_of(info: ContainerInfo) -> Container:
    """Return a container; its health stands in the engine's sentence."""
    name = info.names[0] if info.names else (info.id or "")
    project = _PROJECT_NAME.fullmatch(name)
    exited = _EXITED.match(info.status)
    return Container(
        service=project[1] if project else name.removeprefix("/"),
        is_running=info.state.lower() == "running",
        health=_health_of(info.status),
        exit_code=int(exited[1]) if exited else None,
        said=info.status or info.state,
    )


def _health_of(status: str) -> Health:
    for mark, health in (
        ("(healthy)", Health.HEALTHY),
        ("(unhealthy)", Health.UNHEALTHY),
        ("(health: starting)", Health.STARTING),
    ):
        if mark in status:
            return health
    return Health.NONE


def stats_of(answer: SystemStats) -> Stats:
    """Return what is told; nothing while the guest does not answer."""
    info = answer.sysinfo
    if info is None:
        return Stats()
    total = sum(disk.total_size for disk in info.disks)
    free = sum(disk.free_size for disk in info.disks)
    return Stats(
        memory_used_bytes=info.used_memory,
        memory_total_bytes=info.total_memory,
        disk_used_bytes=total - free if info.disks else None,
        disk_total_bytes=total if info.disks else None,
        uptime_s=info.uptime,
    )


def evidence_of(answer: Attestation) -> Evidence:
    """Return the proof of the application's own certificate.

    The quote binds the key of that certificate, so it proves something about the application only together
    with the certificate. The cloud's documented schema of an attestation has the certificate's names, dates
    and fingerprint, but neither its text nor its key; a fingerprint is of the whole certificate, so the key
    cannot be checked by it. Where the text is told too (as ``pem`` or ``certificate``), it is
    used. Where it is not, there is no evidence: the quote alone could be that of any guest.

    Raises:
        AttestorUnavailableError: the machine offers no quote yet, with the cloud's reason.
        PolicyViolationError: it offers a quote without the certificate that the quote is about.
        CloudProtocolError: the answer is malformed.
    """
    proofs = [certificate for certificate in answer.app_certificates or () if certificate.quote]
    if not proofs or answer.tcb_info is None:
        raise AttestorUnavailableError(
            f"the machine gives no attestation: {answer.error or 'nothing was offered'}; "
            "wait until it runs, then verify again"
        )
    certificate = min(proofs, key=lambda proof: proof.position_in_chain or 0)
    if not certificate.pem:
        # SECURITY: fails closed (test_a_quote_without_its_certificate_is_no_evidence).
        raise PolicyViolationError(
            "the cloud gives the quote without the application's certificate, of which it tells only the "
            f"fingerprint ({(certificate.fingerprint or 'none')[:64]}): nothing tells whose quote it is; "
            "have the application itself prove what it is, or waive the verification by name"
        )
    log = answer.tcb_info.event_log
    return Evidence(
        quote=_quote_of(certificate),
        event_log=log if isinstance(log, str) else json.dumps(log),
        app_compose=answer.tcb_info.app_compose.encode(),
        certificate=_der_of(certificate.pem),
    )


def _quote_of(certificate: Certificate) -> bytes:
    try:
        return bytes.fromhex((certificate.quote or "").removeprefix("0x"))
    except ValueError as exc:
        raise CloudProtocolError(
            Complaint(request="the attestation", text="the quote is not hexadecimal")
        ) from exc


def _der_of(pem: str) -> bytes:
    try:
        return load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    except ValueError as exc:
        raise CloudProtocolError(
            Complaint(request="the attestation", text="the certificate is not PEM")
        ) from exc
