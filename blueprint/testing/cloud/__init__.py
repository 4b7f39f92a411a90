"""A fake of Phala Cloud's HTTP API on loopback, for tests of what deploys.

::

    async with FakeCloud() as cloud:
        cloud.fail("POST", "/cvms/provision", Fault(status=429, retry_after="1"))
        ...  # a client of base URL cloud.url with the key cloud.api_key

Invariant: it refuses what the real one refuses, and boots what it accepts in a simulated guest with real
cryptography, so a client that agrees only with itself fails here.
"""

from blueprint.testing.cloud.fake import FakeCloud
from blueprint.testing.cloud.faults import Fault
from blueprint.testing.cloud.machine import FakeContainer, FakeMachine

__all__ = ["FakeCloud", "FakeContainer", "FakeMachine", "Fault"]
