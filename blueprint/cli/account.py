"""The account that signs: from a keystore, a secret file or the environment.

Invariant: a key is read once at start and never printed; where several keys lie about, none is guessed.
"""

from blueprint.chain.signer import Signer
from blueprint.cli.keyfiles import ask_password, list_keys
from blueprint.cli.session import Session
from blueprint.errors import ConfigError

__all__ = ["load_signer"]


def load_signer(session: Session) -> Signer:
    """Return the signer that the settings name; the only keystore in the state folder when they name none.

    Raises:
        ConfigError: no key is set, several could be meant, or the one that is set cannot be used.
    """
    settings = session.settings
    if settings.private_key is not None:
        return Signer.from_hex(settings.private_key.get_secret_value())
    if settings.private_key_file is not None:
        return Signer.from_secret_file(settings.private_key_file)
    keystore = settings.keystore
    if keystore is None:
        keys = list_keys(session.state_dir / "keys")
        if not keys:
            raise ConfigError(
                "no key is set: make one with `blueprint keys new`, or give --keystore FILE, "
                "--private-key-file FILE or BLUEPRINT_PRIVATE_KEY"
            )
        if len(keys) > 1:
            raise ConfigError(
                f"{len(keys)} keys lie in {session.state_dir / 'keys'}: name one with --keystore FILE "
                "(`blueprint keys list` shows them)"
            )
        keystore = keys[0].path
    return Signer.from_keystore(keystore, ask_password(session, is_new=False))
