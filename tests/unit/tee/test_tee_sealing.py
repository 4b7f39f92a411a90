"""Sealing: the guest's wire format, its limits, and values that nobody gets to see."""

import copy
import json
import pickle
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from blueprint.errors import SealingError
from blueprint.tee.sealing import (
    MAX_KEY_BYTES,
    MAX_SEALED_BYTES,
    MAX_VALUE_BYTES,
    MAX_VARIABLES,
    SecretVariable,
    check_variables,
    seal,
    unseal,
)

PRIVATE = bytes(range(32))
PUBLIC = X25519PrivateKey.from_private_bytes(PRIVATE).public_key().public_bytes_raw()
SECRET = "hunter2-\u00fc-planted"
KEYS = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,254}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


def opened_by_hand(sealed, private=PRIVATE):
    """Open as the format says, with nothing of ours."""
    shared = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(sealed[:32])
    )
    return AESGCM(shared).decrypt(sealed[32:44], sealed[44:], None)


def sealed_by_hand(plaintext):
    sender = X25519PrivateKey.generate()
    iv = b"i" * 12
    shared = sender.exchange(X25519PublicKey.from_public_bytes(PUBLIC))
    return sender.public_key().public_bytes_raw() + iv + AESGCM(shared).encrypt(iv, plaintext, None)


def shown_by(error):
    """Everything that a handler of errors could print: the chain, and the locals of our module's frames."""
    shown = []
    seen = traceback.TracebackException.from_exception(error, capture_locals=True)
    while seen is not None:
        shown.append(str(seen))
        ours = [frame for frame in seen.stack if frame.filename.endswith("tee/sealing.py")]
        shown.extend(repr(frame.locals) for frame in ours)
        seen = seen.__cause__ or seen.__context__
    return "\n".join(shown)


@given(st.dictionaries(KEYS, VALUES, max_size=20))
def test_what_is_sealed_opens(values):
    """Variables come back as they were, in their order."""
    variables = tuple(SecretVariable(key, value) for key, value in values.items())
    assert unseal(seal(variables, PUBLIC), PRIVATE) == variables


def test_the_plaintext_is_compact_json_in_utf_8():
    """The guest gets exactly the bytes that its format names: order kept, no spaces, no escapes of UTF-8."""
    variables = [SecretVariable("B", 'q"uo\nte'), SecretVariable("A", "\u00fc\u6f22\U0001f511")]
    expected = '{"env":[{"key":"B","value":"q\\"uo\\nte"},{"key":"A","value":"\u00fc\u6f22\U0001f511"}]}'
    assert opened_by_hand(seal(variables, PUBLIC)) == expected.encode()


def test_the_sender_key_is_the_ephemeral_one():
    """With a given ephemeral key the first 32 bytes are its public half."""
    assert seal([], PUBLIC, ephemeral_key=PRIVATE)[:32] == PUBLIC


def test_no_two_seals_are_alike():
    """Each seal has a key of its own, so equal variables do not show."""
    variables = [SecretVariable("A", "same")]
    first, second = seal(variables, PUBLIC), seal(variables, PUBLIC)
    assert (first[:32] == second[:32], first[32:44] == second[32:44]) == (False, False)


@pytest.mark.parametrize("key", LOW_ORDER, ids=lambda key: key.hex()[:8])
def test_a_key_of_low_order_is_refused(key):
    """A key for which the secret is zero would let anybody read the variables."""
    with pytest.raises(SealingError, match="low order"):
        seal([SecretVariable("A", SECRET)], key)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length):
    """X25519 keys have 32 bytes."""
    with pytest.raises(SealingError, match=f"expected 32 bytes, received {length}"):
        seal([], b"k" * length)


@pytest.mark.parametrize("position", [0, 32, 44, -1])
def test_a_changed_byte_is_noticed(position):
    """A bit flipped in the key, the IV, the ciphertext or the tag makes opening fail."""
    sealed = bytearray(seal([SecretVariable("A", SECRET)], PUBLIC))
    sealed[position] ^= 1
    with pytest.raises(SealingError, match="not sealed for this key, or changed"):
        unseal(bytes(sealed), PRIVATE)


def test_another_key_does_not_open():
    """Only the key that was sealed to opens."""
    with pytest.raises(SealingError, match="not sealed for this key"):
        unseal(seal([SecretVariable("A", SECRET)], PUBLIC), bytes(range(1, 33)))


@pytest.mark.parametrize("length", [0, 59, MAX_SEALED_BYTES + 1])
def test_sealed_bytes_of_an_impossible_size_are_refused(length):
    """What is too short for a tag or too long for the guest is not decrypted."""
    with pytest.raises(SealingError, match=f"{length} bytes"):
        unseal(b"x" * length, PRIVATE)


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"[]",
        b'{"env":{"A":"b"}}',
        b'{"env":[{"key":"A"}]}',
        b'{"env":[{"key":"A","value":1}]}',
        b"\xff",
        b"[" * 9000,
    ],
)
def test_contents_of_another_shape_are_refused(plaintext):
    """A stranger's plaintext opens only if it has the guest's shape."""
    with pytest.raises(SealingError, match="not sealed for this key, or changed"):
        unseal(sealed_by_hand(plaintext), PRIVATE)


def test_opened_variables_obey_the_limits_too():
    """The guest refuses a bad name although it decrypts."""
    with pytest.raises(SealingError, match="variable '1A'"):
        unseal(sealed_by_hand(json.dumps({"env": [{"key": "1A", "value": "x"}]}).encode()), PRIVATE)


@pytest.mark.parametrize(
    "variables",
    [
        [SecretVariable(f"V{number}", "") for number in range(MAX_VARIABLES)],
        [SecretVariable("K" * MAX_KEY_BYTES, "")],
        [SecretVariable("_", "x" * MAX_VALUE_BYTES)],
        [SecretVariable("A", "\u00fc" * (MAX_VALUE_BYTES // 2))],
    ],
    ids=["count", "key", "value", "value in UTF-8"],
)
def test_the_limits_themselves_are_allowed(variables):
    """Exactly as much as the guest accepts can be sealed."""
    assert unseal(seal(variables, PUBLIC), PRIVATE) == tuple(variables)


def test_the_sealed_file_may_have_256_kib_exactly():
    """The size of the sealed file is limited to the byte."""
    rest = MAX_SEALED_BYTES - len(
        seal([SecretVariable("A", "x" * MAX_VALUE_BYTES), SecretVariable("B", "")], PUBLIC)
    )
    fits = [SecretVariable("A", "x" * MAX_VALUE_BYTES), SecretVariable("B", "y" * rest)]
    assert len(seal(fits, PUBLIC)) == MAX_SEALED_BYTES
    fits[1] = SecretVariable("B", "y" * (rest + 1))
    with pytest.raises(SealingError, match=f"sealed file of {MAX_SEALED_BYTES + 1} bytes"):
        check_variables(fits)


BAD = {
    "count": ([SecretVariable(f"V{n}", SECRET) for n in range(MAX_VARIABLES + 1)], "1025 variables"),
    "twice": ([SecretVariable("A", SECRET), SecretVariable("A", SECRET)], "'A': occurs twice"),
    "digit": ([SecretVariable("1A", SECRET)], "'1A'"),
    "empty": ([SecretVariable("", SECRET)], "variable ''"),
    "newline": ([SecretVariable("A\n", SECRET)], r"'A\\n'"),
    "not ASCII": ([SecretVariable("\u00c4", SECRET)], "\u00c4"),
    "long key": ([SecretVariable("K" * 256, SECRET)], "256 bytes"),
    "long value": ([SecretVariable("BIG", SECRET + "x" * 129 * 1024)], "'BIG': the value has"),
    "surrogate": ([SecretVariable("S", SECRET + "\ud800")], "'S': the value is not valid Unicode"),
    "NUL": ([SecretVariable("N", SECRET + "\0")], "'N': the value holds a NUL"),
    "size": ([SecretVariable(f"V{n}", SECRET + "x" * 100_000) for n in range(3)], "sealed file"),
}


@pytest.mark.parametrize(("variables", "expected"), BAD.values(), ids=BAD)
def test_a_broken_limit_is_named(variables, expected):
    """Each limit of the guest is an error before anything is sent."""
    with pytest.raises(SealingError, match=expected):
        seal(variables, PUBLIC)


@pytest.mark.parametrize(("variables", "expected"), BAD.values(), ids=BAD)
def test_no_error_shows_a_value(variables, expected):
    """Message, chain of causes and the locals of every frame of ours hold nothing of a value."""
    with pytest.raises(SealingError) as caught:
        seal(variables, PUBLIC)
    assert "hunter2" not in shown_by(caught.value)
    assert "blueprint.tee.sealing" in caught.value.__traceback__.tb_next.tb_frame.f_globals["__name__"]


@pytest.mark.parametrize("wrong", ["1A", "A\u00c4"])
def test_no_error_of_opening_shows_a_value(wrong):
    """The same holds where the plaintext has been decrypted already."""
    sealed = sealed_by_hand(json.dumps({"env": [{"key": wrong, "value": "hunter2"}]}).encode())
    with pytest.raises(SealingError) as caught:
        unseal(sealed, PRIVATE)
    assert "hunter2" not in shown_by(caught.value)


def test_no_error_of_a_wrong_shape_shows_a_value():
    """A plaintext of another shape is not shown either."""
    with pytest.raises(SealingError) as caught:
        unseal(sealed_by_hand(b'{"env":[{"key":"A","value":["hunter2"]}]}'), PRIVATE)
    assert "hunter2" not in shown_by(caught.value)


def test_the_representation_hides_the_value():
    """Printing a variable shows its name only."""
    variable = SecretVariable("A", SECRET)
    assert {repr(variable), str(variable), f"{variable}"} == {"SecretVariable(key='A')"}


@pytest.mark.parametrize("write", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_variable_cannot_be_pickled_or_copied(write):
    """Nothing writes a value elsewhere by accident."""
    with pytest.raises(TypeError, match="cannot be pickled or copied") as caught:
        write(SecretVariable("A", SECRET))
    assert SECRET not in str(caught.value)
