"""A simulated guest boots what the real one boots, and nothing else."""

import json

import pytest

from blueprint.tee.event_log import boot_events
from blueprint.tee.sealing import MAX_SEALED_BYTES, SecretVariable, seal
from blueprint.tee.simulator.cvm import BootError, SimulatedCvm
from blueprint.tee.simulator.kms import SimulatedKms
from blueprint.tee.simulator.platform import MockPlatform

APP_ID = bytes(range(20))
KMS = SimulatedKms(b"k" * 32)
PLATFORM = MockPlatform(seed=b"p")


def boot(sealed=None, app_id=APP_ID, compose=None, **content):
    text = json.dumps({"kms_enabled": True, **content}).encode() if compose is None else compose
    return SimulatedCvm(app_compose=text, sealed=sealed, app_id=app_id, kms=KMS, platform=PLATFORM)


def sealed_for(app_id=APP_ID, **values):
    return seal([SecretVariable(key, value) for key, value in values.items()], KMS.env_public_key(app_id))


def test_allowed_variables_pass_and_others_are_dropped_with_a_warning():
    """The warning names the variable, never its value."""
    cvm = boot(sealed_for(A="1", B="planted"), allowed_envs=["A", "C"])
    assert cvm.variables == (SecretVariable("A", "1"),)
    assert cvm.warnings == ("variable 'B' is not in allowed_envs and was dropped",)


@pytest.mark.parametrize("content", [{}, {"allowed_envs": None}, {"allowed_envs": []}])
def test_without_a_list_no_variable_passes(content):
    """What nobody allows is dropped."""
    assert boot(sealed_for(A="1"), **content).variables == ()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"compose": b"{"}, "app-compose.json"),
        ({"compose": b"[]"}, "expected an object"),
        ({"app_id": b"x"}, "app id: expected 20 bytes"),
        ({"sealed": sealed_for(bytes(20), A="planted")}, "not sealed for this key"),
        ({"sealed": b"x" * (MAX_SEALED_BYTES + 1)}, "more than"),
        ({"sealed": sealed_for(A="planted"), "kms_enabled": False}, "nobody gives this guest the key"),
    ],
)
def test_what_a_guest_cannot_boot_fails(options, expected):
    """A broken limit is a failed boot with its reason."""
    with pytest.raises(BootError, match=expected) as caught:
        boot(**options)
    assert "planted" not in str(caught.value)


def test_what_was_booted_is_measured():
    """App id, compose hash, instance and key provider are in the log."""
    cvm = boot()
    measured = boot_events(cvm.events)
    assert measured["app-id"] == APP_ID
    assert measured["compose-hash"] == cvm.compose_hash
    assert measured["instance-id"] == cvm.instance_id
    assert measured["key-provider"] == KMS.key_provider.to_payload()


def test_an_application_can_have_no_instance_id():
    """Then the guest measures an empty one."""
    assert boot_events(boot(no_instance_id=True).events)["instance-id"] == b""


def test_keys_follow_from_the_seed():
    """A KMS that starts again opens what was sealed before; another one does not."""
    again, other = SimulatedKms(b"k" * 32), SimulatedKms()
    assert again.env_public_key(APP_ID) == KMS.env_public_key(APP_ID) != other.env_public_key(APP_ID)
