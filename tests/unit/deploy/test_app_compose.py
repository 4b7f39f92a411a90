"""app-compose.json: the bytes that a guest measures."""

import hashlib
import json

import pytest

from jobs.deploy.app_compose import AppCompose, AppComposeError, parse_app_compose

TEXT = "services:\n  web:\n    image: nginx:1.25  # \u00fc\n"


def test_bytes_are_always_the_same() -> None:
    """The form is fixed to the byte: a change of it would change every application's identity."""
    workload = AppCompose(name="web-app", docker_compose_file=TEXT, allowed_envs=("B", "A")).workload()
    assert workload.app_compose == (
        b'{"allowed_envs":["B","A"],"docker_compose_file":"services:\\n  web:\\n    image: nginx:1.25  # '
        b'\xc3\xbc\\n","gateway_enabled":true,"kms_enabled":true,"local_key_provider_enabled":false,'
        b'"manifest_version":2,"name":"web-app","no_instance_id":false,"public_logs":false,'
        b'"public_sysinfo":false,"public_tcbinfo":true,"runner":"docker-compose","secure_time":false,'
        b'"storage_fs":"zfs","swap_size":0}'
    )
    assert workload.compose_hash == hashlib.sha256(workload.app_compose).digest()


def test_text_is_kept_byte_for_byte() -> None:
    """What comes out of the bytes is what the user wrote, tabs, quotes and line ends included."""
    text = 'services:\r\n  web: {image: "a:1"}\t\n# \u2028 "quoted"\n'
    workload = AppCompose(name="web-app", docker_compose_file=text).workload()
    assert parse_app_compose(workload.app_compose)["docker_compose_file"] == text


def test_nothing_is_public_by_default() -> None:
    """Logs and system information are shown to nobody unless the description says so."""
    members = json.loads(AppCompose(name="web-app", docker_compose_file=TEXT).workload().app_compose)
    assert (members["public_logs"], members["public_sysinfo"]) == (False, False)


@pytest.mark.parametrize(
    "name", ["", "abcd", "a" * 64, "1abcd", "ab--cd", "abcd-", "ab_cd", "ab cd", "abcde\n"]
)
def test_names_that_the_cloud_refuses_are_refused(name: str) -> None:
    """A name is checked before anything is sent."""
    with pytest.raises(AppComposeError, match="name: expected 5 to 63.*--name"):
        AppCompose(name=name, docker_compose_file=TEXT)


@pytest.mark.parametrize("name", ["abcde", "a" * 63, "A-1-b-2"])
def test_names_that_the_cloud_accepts_are_accepted(name: str) -> None:
    """The shortest, the longest, and one with single hyphens."""
    assert AppCompose(name=name, docker_compose_file=TEXT).name == name


def test_texts_are_bounded_together() -> None:
    """Compose text and script share 200 KiB, counted in bytes and not in characters."""
    half = "\u00fc" * (50 * 1024)
    AppCompose(name="web-app", docker_compose_file=half, pre_launch_script=half)
    with pytest.raises(AppComposeError, match="204801 bytes together"):
        AppCompose(name="web-app", docker_compose_file=half, pre_launch_script=half + "x")


def test_a_variable_named_twice_is_refused() -> None:
    """Each name stands once."""
    with pytest.raises(AppComposeError, match="variable A is named twice"):
        AppCompose(name="web-app", docker_compose_file=TEXT, allowed_envs=("A", "B", "A"))


@pytest.mark.parametrize("member", ["docker_compose_file", "pre_launch_script"])
def test_a_text_that_is_no_utf_8_is_refused(member: str) -> None:
    """Half a character has no bytes that could be measured."""
    with pytest.raises(AppComposeError, match=f"{member}: not UTF-8"):
        AppCompose(**{"name": "web-app", "docker_compose_file": TEXT, member: "a\udc80"})  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"docker_compose_file": 1}', b"[" * 5000, b"\xff"])
def test_what_is_no_app_compose_is_refused(content: bytes) -> None:
    """Other JSON, no JSON, and what would overflow a parser's stack."""
    with pytest.raises(AppComposeError):
        parse_app_compose(content)
