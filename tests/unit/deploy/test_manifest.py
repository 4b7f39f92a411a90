"""A compose text is written from a description, and is then judged like any other."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.deploy.compose.check import check_compose
from jobs.deploy.compose.findings import ComposeError
from jobs.deploy.errors import DeployError
from jobs.deploy.manifest import Description, write_manifest

IMAGE = "registry.example/app@sha256:" + "ab" * 32


def test_a_description_becomes_a_text_that_is_accepted() -> None:
    """Everything that can be described, with the names of its variables and no value."""
    text = write_manifest(
        Description(
            image=IMAGE,
            service="web",
            command=("sh", "-c", "echo $HOME ${TOKEN}"),
            ports=("8080:80", "22:22"),
            volumes={"data": "/data"},
            names=("TOKEN", "GREETING"),
        )
    )
    compose = check_compose(text, names=["TOKEN", "GREETING"])
    assert (compose.services, compose.images, compose.volumes) == (("web",), (IMAGE,), ("data",))
    web = yaml.safe_load(text)["services"]["web"]
    assert web["environment"] == {"TOKEN": "${TOKEN}", "GREETING": "${GREETING}"}
    assert web["command"] == ["sh", "-c", "echo $$HOME $${TOKEN}"]
    assert web["ports"] == ["8080:80", "22:22"]


def test_the_shortest_description_is_an_image() -> None:
    """What is not described is not written."""
    text = write_manifest(Description(image=IMAGE))
    assert text == f"services:\n  app:\n    image: {IMAGE}\n    restart: unless-stopped\n"
    assert check_compose(text).services == ("app",)


@pytest.mark.parametrize("volume", [("/etc", "/etc"), ("./data", "/data"), ("data", "data")])
def test_what_is_no_volume_is_refused(volume: tuple[str, str]) -> None:
    """A description has no folders of the guest: who wants one writes the compose file himself."""
    with pytest.raises(DeployError, match="is no volume"):
        write_manifest(Description(image=IMAGE, volumes=dict([volume])))


def test_an_image_without_a_digest_is_not_let_through() -> None:
    """The text is judged like one that was written by hand."""
    with pytest.raises(ComposeError, match="neither tag nor digest"):
        check_compose(write_manifest(Description(image="nginx")))


@given(
    st.lists(
        st.sampled_from(["1e5", "0o7", "0x1", "1:30", "on", "~", "2024-02-29", "1_0"])
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=100, deadline=None)
def test_a_command_arrives_word_by_word(words: list[str]) -> None:
    """Quotes, line breaks, dollar signs and what looks like YAML stay what they are."""
    text = write_manifest(Description(image=IMAGE, command=tuple(words)))
    written = yaml.safe_load(text)["services"]["app"]["command"]
    assert [word.replace("$$", "$") for word in written] == words
    if "\0" not in "".join(words):
        assert check_compose(text).services == ("app",)
