"""Signing, and keeping the key: compared with the reference implementation."""

import copy
import json
import os
import pickle
import random
import stat

import pytest
from eth_account import Account
from eth_keyfile import create_keyfile_json

from blueprint.chain.signer import Signer, checksum_address, parse_checksum_address
from blueprint.errors import ConfigError
from blueprint.types import Address

KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
INTEGERS = (0, 1, 127, 128, 255, 256, 2**32, 2**63, 10**18, 2**64 - 1)


def _reference(key, transaction):
    return Account.sign_transaction(transaction, key)


def _fields(**changes):
    fields = {
        "chain_id": 31337,
        "nonce": 5,
        "to": Address(b"\x0c" * 20),
        "data": b"",
        "gas": 21000,
        "max_fee_wei": 10**10,
        "max_priority_fee_wei": 10**9,
        "value_wei": 0,
    }
    return {**fields, **changes}


def _as_reference(fields):
    transaction = {
        "type": 2,
        "chainId": fields["chain_id"],
        "nonce": fields["nonce"],
        "data": fields["data"],
        "gas": fields["gas"],
        "maxFeePerGas": fields["max_fee_wei"],
        "maxPriorityFeePerGas": fields["max_priority_fee_wei"],
        "value": fields["value_wei"],
    }
    if fields["to"] is not None:
        transaction["to"] = checksum_address(fields["to"])
    return transaction


def test_transactions_equal_those_of_the_reference():
    """Over random fields of every size, bytes and hash are those of eth-account."""
    rng = random.Random(7)
    for size in [0, 1, 1, 54, 55, 56, 255, 256, 5000, 70_000, *[rng.randrange(300) for _ in range(50)]]:
        key = rng.randbytes(32)
        fee = rng.choice(INTEGERS)
        fields = _fields(
            chain_id=rng.choice(INTEGERS[1:]),
            nonce=rng.choice(INTEGERS),
            to=rng.choice([None, Address(rng.randbytes(20)), Address(bytes(20))]),
            data=rng.choice([rng.randbytes(size), bytes(size), b"\x7f" * size, b"\x80" * size]),
            gas=rng.choice(INTEGERS),
            max_fee_wei=fee,
            max_priority_fee_wei=rng.randrange(fee + 1),
            value_wei=rng.choice([*INTEGERS, 2**200]),
        )
        signed = Signer(key).sign_transaction(**fields)
        reference = _reference(key, _as_reference(fields))
        assert signed.raw == bytes(reference.raw_transaction)
        assert signed.hash == bytes(reference.hash)


def test_the_sender_is_recovered_from_the_bytes():
    """Whoever receives the transaction recovers the signer's address."""
    signer = Signer.from_hex(KEY)
    signed = signer.sign_transaction(**_fields(data=b"payload"))
    assert Account.recover_transaction(signed.raw) == ADDRESS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nonce": -1}, "non-negative"),
        ({"to": Address(b"\x01" * 19)}, "20 bytes or None, received 19"),
        ({"max_priority_fee_wei": 2 * 10**10}, "tip of at most"),
    ],
)
def test_impossible_fields_are_refused(changes, message):
    """What no node would accept is refused before it is signed."""
    with pytest.raises(ValueError, match=message):
        Signer.from_hex(KEY).sign_transaction(**_fields(**changes))


@pytest.mark.parametrize("text", [KEY, "0x" + KEY, f"  0x{KEY}\n", KEY.upper()])
def test_a_key_in_hexadecimal_gives_its_address(text):
    """A key from the environment or a file is read with or without its prefix."""
    assert checksum_address(Signer.from_hex(text).address) == ADDRESS


@pytest.mark.parametrize(
    "text", ["", "0x", "zz" * 32, KEY[:-2], KEY + "00", "00" * 32, "ff" * 32, f"{KEY[:-1]}\u0661"]
)
def test_a_bad_key_is_refused_without_being_quoted(text):
    """The error says what is expected and never repeats the secret."""
    with pytest.raises(ConfigError, match="private key: expected") as caught:
        Signer.from_hex(text)
    assert not text or text not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_key_is_never_shown():
    """Neither repr nor pickling nor copying gives the key away."""
    signer = Signer.from_hex(KEY)
    assert repr(signer) == str(signer) == f"Signer({ADDRESS})"
    assert KEY[:8] not in f"{signer!r} {signer.sign_transaction(**_fields())!r}"
    with pytest.raises(TypeError, match="private key"):
        pickle.dumps(signer)
    with pytest.raises(TypeError, match="private key"):
        copy.copy(signer)


def test_generated_keys_differ():
    """A new key is random."""
    assert Signer.generate().address != Signer.generate().address


def _private(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_secret_file_holds_the_key(tmp_path):
    """A file with the digits is enough."""
    path = _private(tmp_path / "key", f"0x{KEY}\n")
    assert checksum_address(Signer.from_secret_file(path).address) == ADDRESS


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_secret_that_others_can_read_is_refused(tmp_path, mode):
    """A key that others can read is refused, with the command that repairs it."""
    path = _private(tmp_path / "key", KEY)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600 "):
        Signer.from_secret_file(path)
    with pytest.raises(ConfigError, match="chmod 600"):
        Signer.from_keystore(path, "x")


def test_unreadable_secrets_are_named(tmp_path):
    """A file that is missing, a directory, a pipe, huge, binary or no key is named in the error."""
    huge = _private(tmp_path / "huge", "0" * 70_000)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    binary.chmod(0o600)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    bad = _private(tmp_path / "bad", "hello")
    cases = [
        (tmp_path / "none", "No such file"),
        (tmp_path, "regular file"),
        (pipe, "regular file"),
        (huge, "at most"),
        (binary, "binary"),
        (bad, "expected 64 hexadecimal"),
    ]
    for path, message in cases:
        with pytest.raises(ConfigError, match=message) as caught:
            Signer.from_secret_file(path)
        assert str(path) in str(caught.value)


def test_a_keystore_of_another_program_is_read(tmp_path):
    """A version 3 keystore, whatever its key derivation, opens with its password."""
    for kdf in ("scrypt", "pbkdf2"):
        keystore = create_keyfile_json(bytes.fromhex(KEY), b"pass", kdf=kdf, iterations=2)
        path = _private(tmp_path / kdf, json.dumps(keystore))
        assert checksum_address(Signer.from_keystore(path, "pass").address) == ADDRESS
        with pytest.raises(ConfigError, match="password is wrong"):
            Signer.from_keystore(path, "other")


def test_a_keystore_is_written_for_its_owner_only(tmp_path):
    """A written keystore opens again, cannot be read by others, and replaces nothing."""
    path = tmp_path / "operator.json"
    signer = Signer.generate()
    signer.write_keystore(path, "pass")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Signer.from_keystore(path, "pass").address == signer.address
    with pytest.raises(ConfigError, match="exists already"):
        Signer.from_hex(KEY).write_keystore(path, "pass")
    assert [entry.name for entry in tmp_path.iterdir()] == ["operator.json"]


def test_a_keystore_that_cannot_be_written_leaves_nothing(tmp_path):
    """Without a password, or without its directory, there is an error and no file."""
    with pytest.raises(ConfigError, match="password"):
        Signer.from_hex(KEY).write_keystore(tmp_path / "a", "")
    with pytest.raises(ConfigError, match="cannot write"):
        Signer.from_hex(KEY).write_keystore(tmp_path / "none" / "a", "pass")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "version 3"),
        ('{"version": 1}', "version 3"),
        ('{"version": 3}', "not a complete"),
        ('{"version": 3, "crypto": {"kdf": "none"}}', "not a complete"),
        ('{"version": 3, "crypto": 5}', "not a complete"),
    ],
)
def test_a_broken_keystore_is_explained(tmp_path, text, message):
    """A file that is no keystore is refused with what is wrong about it."""
    path = _private(tmp_path / "keystore", text)
    with pytest.raises(ConfigError, match=message):
        Signer.from_keystore(path, "pass")


def test_a_keystore_with_the_address_of_another_key_is_refused(tmp_path):
    """The stated address must be that of the key inside."""
    keystore = create_keyfile_json(bytes.fromhex(KEY), b"pass", kdf="pbkdf2", iterations=2)
    path = _private(tmp_path / "keystore", json.dumps({**keystore, "address": "00" * 20}))
    with pytest.raises(ConfigError, match="damaged"):
        Signer.from_keystore(path, "pass")


def test_addresses_carry_the_checksum_of_eip_55():
    """The examples of EIP-55, and back."""
    for text in [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0xde709f2102306220921060314715629080e2fb77",
    ]:
        address = Address(bytes.fromhex(text[2:]))
        assert checksum_address(address) == text
        assert parse_checksum_address(text) == parse_checksum_address(text.lower()) == address


@pytest.mark.parametrize("text", ["", "0x12", "0x" + "g" * 40, "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"])
def test_a_mistyped_address_is_refused(text):
    """A wrong length, a wrong digit or a wrong checksum is an error."""
    with pytest.raises(ConfigError, match="address"):
        parse_checksum_address(text)
