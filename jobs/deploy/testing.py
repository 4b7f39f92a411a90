"""A deployer for those who test what stands above it: nothing runs, but keys, ciphertext and memory are real.

Invariant: its memory is a file, so that another object, or another process, finds what this one has done. It
holds names of variables, never their values.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from typing_extensions import override

from blueprint.errors import SealingError
from blueprint.tee.sealing import unseal
from blueprint.tee.simulator.kms import SimulatedKms
from jobs.deploy.backends.backend import PublicKey
from jobs.deploy.errors import ApplicationFailedError, OrderRefusedError, PreparationLostError
from jobs.deploy.order import Deployed, Deployer, Order, Prepared

__all__ = ["FakeDeployer"]

_SEED = hashlib.sha256(b"fake deployer").digest()


class _Record(TypedDict):
    """What is remembered of an order."""

    app_id: str
    compose_hash: str
    allowed: list[str]
    arrived: list[str] | None
    """Names of the variables of the application that runs; None while none does."""
    sealed_sha256: str


class FakeDeployer(Deployer):
    """Deploys into a file.

    Args:
        path: the file that is its memory; made when missing.
        reach: told of each step with the order's key; what it raises is raised there, so that a test can let
            the step fail. The steps: ``prepare``, ``prepared``, ``commit``, ``committed``, ``remove``,
            ``removed``.
    """

    def __init__(self, path: Path, *, reach: Callable[[str, str], None] = lambda _step, _key: None) -> None:
        self._path = path
        self._reach = reach
        self.kms = SimulatedKms(_SEED)
        self.steps: list[tuple[str, str]] = []

    @property
    def running(self) -> dict[str, list[str]]:
        """The applications that run: the names of their variables by key."""
        records = self._read()
        return {key: record["arrived"] for key, record in records.items() if record["arrived"] is not None}

    @property
    def known(self) -> set[str]:
        """The keys that something is remembered of."""
        return set(self._read())

    @override
    async def prepare(self, order: Order) -> Prepared:
        self._step("prepare", order.key)
        if "services:" not in order.compose:
            raise OrderRefusedError("compose: it has no services", advice="add one")
        records = self._read()
        if order.key not in records:
            records[order.key] = _Record(
                # Another identity at each preparation that was forgotten, as real places give.
                app_id=hashlib.sha256(f"{order.key}{len(self.steps)}".encode()).hexdigest()[:40],
                compose_hash=order.workload().compose_hash.hex(),
                allowed=list(order.names),
                arrived=None,
                sealed_sha256="",
            )
            self._write(records)
        self._step("prepared", order.key)
        record = records[order.key]
        app_id = bytes.fromhex(record["app_id"])
        return Prepared(
            app_id=record["app_id"],
            compose_hash=bytes.fromhex(record["compose_hash"]),
            public_key=PublicKey(
                key=self.kms.env_public_key(app_id), signature=self.kms.sign_public_key(app_id), kms="fake"
            ),
        )

    @override
    async def commit(self, key: str, sealed: bytes) -> Deployed:
        self._step("commit", key)
        records = self._read()
        record = records.get(key)
        if record is None:
            raise PreparationLostError("nothing is prepared under this key", advice="prepare again")
        digest = hashlib.sha256(sealed).hexdigest()
        assert record["sealed_sha256"] in ("", digest), "a second ciphertext for one key"
        if record["arrived"] is None:
            record["arrived"] = self._open(bytes.fromhex(record["app_id"]), sealed, record["allowed"])
            record["sealed_sha256"] = digest
            self._write(records)
        self._step("committed", key)
        evidence = json.dumps({"fake": True, "app_id": record["app_id"], "key": key}).encode()
        return Deployed(
            app_id=record["app_id"],
            compose_hash=bytes.fromhex(record["compose_hash"]),
            instance_id=hashlib.sha256(key.encode()).hexdigest()[:40],
            endpoint=f"https://{record['app_id']}.example",
            attestation_digest=hashlib.sha256(b"attestation" + evidence).digest(),
            evidence=evidence,
        )

    @override
    async def remove(self, key: str) -> None:
        self._step("remove", key)
        records = self._read()
        records.pop(key, None)
        self._write(records)
        self._step("removed", key)

    def _open(self, app_id: bytes, sealed: bytes, allowed: list[str]) -> list[str]:
        """Open the ciphertext as a guest does, and return the names that pass."""
        if not sealed:
            return []
        try:
            variables = unseal(sealed, self.kms.env_private_key(app_id))
        except SealingError as exc:
            raise ApplicationFailedError("the guest cannot open the variables") from exc
        return [variable.key for variable in variables if variable.key in allowed]

    def _step(self, step: str, key: str) -> None:
        self.steps.append((step, key))
        self._reach(step, key)

    def _read(self) -> dict[str, _Record]:
        if not self._path.exists():
            return {}
        records: dict[str, _Record] = json.loads(self._path.read_text(encoding="utf-8"))
        return records

    def _write(self, records: dict[str, _Record]) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(records), encoding="utf-8")
        beside.replace(self._path)
