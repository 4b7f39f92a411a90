"""Which KMS keys a command believes before it seals anything to a key that one of them has signed.

Invariant: a key that was named is the only one believed; else the first that is seen is announced.
"""

import time
from collections.abc import Callable
from typing import Final

from blueprint.cli.session import Session
from jobs.deploy.trust import KmsTrust

__all__ = ["SEAL_SETTINGS", "UNASKED", "kms_trust"]

SEAL_SETTINGS: Final = ("state_dir", "kms_key")
"""What every command that seals can be told on its command line."""
UNASKED: Final = frozenset({".env", "blueprint.toml"})
"""Files of settings that are read because they lie where a command is called, whoever wrote them."""


def kms_trust(
    session: Session,
    *,
    pinned: tuple[bytes, ...] = (),
    announce: Callable[[str], None] | None = None,
    now_s: Callable[[], float] = time.time,
) -> KmsTrust:
    """Return what decides about keys to seal to.

    Args:
        session: its settings name keys, or none.
        pinned: a place's own, used where none is named.
        announce: told of the first key that is seen; the terminal if None.
        now_s: seconds since 1970.
    """
    named = tuple(bytes.fromhex(key) for key in session.settings.kms_key)
    tell = announce or (lambda text: session.say(text, "yellow"))
    # SECURITY: a folder from elsewhere names no key unnoticed (test_a_folder_names_no_kms_key_unnoticed).
    if named and (origin := session.origins.get("kms_key")) in UNASKED:
        tell(f"KMS keys are believed as {origin} of this folder says: {', '.join(session.settings.kms_key)}")
    remembered = session.state_dir / "kms-keys.json"
    is_used = not named and not pinned and remembered.exists()
    if is_used and (origin := session.origins.get("state_dir")) in UNASKED:
        tell(f"KMS keys are believed as {remembered} says, which {origin} of this folder names")
    return KmsTrust(
        pinned=named or pinned,
        remembered=remembered,
        announce=tell,
        now_s=now_s,
    )
