"""What every `Deployer` must do; a test class for each one derives from `DeployerConformance`."""

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest

from blueprint.tee.kms_key import verify_public_key
from blueprint.tee.sealing import SecretVariable, seal
from jobs.deploy.errors import DeployError, OrderRefusedError, PreparationLostError
from jobs.deploy.order import Deployer, Order, Prepared

__all__ = ["DeployerConformance", "order"]

COMPOSE = """\
services:
  web:
    image: busybox:latest
    environment:
      TOKEN: ${TOKEN}
"""


def order(seed: str, *, compose: str = COMPOSE, names: tuple[str, ...] = ("TOKEN",)) -> Order:
    """Return an order of its own for each seed."""
    return Order(key=hashlib.sha256(seed.encode()).hexdigest(), name="my-app", compose=compose, names=names)


class DeployerConformance:
    """The suite. A subclass says how to open a deployer, and looks at the place from outside."""

    compose: str = COMPOSE

    def opened(self) -> AbstractAsyncContextManager[Deployer]:
        """Open a new object over the same durable state as the one before."""
        raise NotImplementedError

    def pinned_keys(self) -> list[bytes]:
        """Return the KMS keys that vouch for what is sealed to."""
        raise NotImplementedError

    async def machines(self) -> int:
        """Count what runs, as the place itself tells."""
        raise NotImplementedError

    @pytest.fixture
    async def deployer(self) -> AsyncIterator[Deployer]:
        """A deployer that nothing was asked of yet."""
        async with self.opened() as deployer:
            yield deployer

    def order(self, seed: str = "one") -> Order:
        """Return an order of the application that this place can run."""
        return order(seed, compose=self.compose)

    @staticmethod
    def sealed(prepared: Prepared) -> bytes:
        """Seal the variable of the application."""
        assert prepared.public_key is not None
        return seal([SecretVariable("TOKEN", "a value")], prepared.public_key.key)

    async def test_a_preparation_has_a_key_that_the_kms_vouches_for(self, deployer: Deployer) -> None:
        """App id and compose hash have their lengths, and the pinned KMS key signed what to seal to."""
        prepared = await deployer.prepare(self.order())
        assert (len(bytes.fromhex(prepared.app_id)), len(prepared.compose_hash)) == (20, 32)
        assert prepared.public_key is not None
        verify_public_key(
            app_id=bytes.fromhex(prepared.app_id),
            public_key=prepared.public_key.key,
            signature=prepared.public_key.signature,
            timestamp_s=prepared.public_key.timestamp_s,
            now_s=int(time.time()),
            pinned_keys=self.pinned_keys(),
        )
        assert await self.machines() == 0

    async def test_a_preparation_is_the_same_when_repeated(self, deployer: Deployer) -> None:
        """Neither the same object nor one after a restart gives a second identity."""
        first = await deployer.prepare(self.order())
        assert await deployer.prepare(self.order()) == first
        async with self.opened() as other:
            assert await other.prepare(self.order()) == first

    async def test_orders_of_one_name_are_two_applications(self, deployer: Deployer) -> None:
        """An order never changes what another has deployed, whatever it is called."""
        first, second = [await deployer.prepare(self.order(seed)) for seed in ("one", "two")]
        assert first.app_id != second.app_id
        assert first.compose_hash == second.compose_hash  # the name of the machine is not measured

    async def test_a_commit_deploys_what_was_prepared(self, deployer: Deployer) -> None:
        """The identity is the prepared one, and there is a digest of the attestation."""
        prepared = await deployer.prepare(self.order())
        deployed = await deployer.commit(self.order().key, self.sealed(prepared))
        assert (deployed.app_id, deployed.compose_hash) == (prepared.app_id, prepared.compose_hash)
        assert len(deployed.attestation_digest) == 32
        assert any(deployed.attestation_digest)
        assert deployed.instance_id == "" or len(bytes.fromhex(deployed.instance_id)) == 20
        assert await self.machines() == 1

    async def test_a_commit_is_the_same_when_repeated(self, deployer: Deployer) -> None:
        """After a restart too, the same ciphertext makes no second machine."""
        sealed = self.sealed(await deployer.prepare(self.order()))
        first = await deployer.commit(self.order().key, sealed)
        async with self.opened() as other:
            again = await other.commit(self.order().key, sealed)
        assert (again.app_id, again.instance_id) == (first.app_id, first.instance_id)
        assert await self.machines() == 1

    async def test_what_was_not_prepared_cannot_be_committed(self, deployer: Deployer) -> None:
        """An unknown key is PreparationLostError."""
        with pytest.raises(PreparationLostError):
            await deployer.commit(self.order().key, b"x" * 100)

    async def test_removal_leaves_nothing_and_can_be_repeated(self, deployer: Deployer) -> None:
        """The machine is gone, and so is the memory of the order."""
        sealed = self.sealed(await deployer.prepare(self.order()))
        await deployer.commit(self.order().key, sealed)
        for _ in range(2):
            await deployer.remove(self.order().key)
        assert await self.machines() == 0
        with pytest.raises(PreparationLostError):
            await deployer.commit(self.order().key, sealed)

    async def test_a_preparation_can_be_removed(self, deployer: Deployer) -> None:
        """What nobody committed can be forgotten, as can what nobody prepared."""
        await deployer.prepare(self.order())
        for seed in ("one", "never"):
            await deployer.remove(self.order(seed).key)
        assert await self.machines() == 0

    async def test_a_compose_text_without_services_is_refused(self, deployer: Deployer) -> None:
        """The caller is told, by the error that is meant for callers."""
        with pytest.raises(OrderRefusedError):
            await deployer.prepare(order("bad", compose="x: 1\n", names=()))

    async def test_a_ciphertext_that_nobody_can_open_deploys_nothing(self, deployer: Deployer) -> None:
        """The guest cannot boot with it: a DeployError, and after the removal that follows nothing runs."""
        await deployer.prepare(self.order())
        with pytest.raises(DeployError):
            await deployer.commit(self.order().key, b"\5" * 100)
        await deployer.remove(self.order().key)
        assert await self.machines() == 0
