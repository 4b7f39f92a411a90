"""Where a tree's packages come from: the host's own sources of Debian."""

from pathlib import Path

import pytest

from sandbox.errors import SandboxUnavailableError
from sandbox.rootfs.apt import (
    AptSource,
    host_options,
    host_sources,
    parse_deb822,
    parse_one_line,
    sources_for_suite,
)

DEB822 = """\
Types: deb deb-src
# a comment in between
URIs: http://mirror.test/debian
  http://second.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/x.gpg

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.test/debian
Suites: bookworm
Components: main
"""


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    """A file that stands for Debian's archive keyring."""
    path = tmp_path / "keyring.gpg"
    path.write_bytes(b"key")
    return path


def source(suites: str, *, uri: str = "http://mirror.test/debian", components: str = "main") -> AptSource:
    """Make one archive from words."""
    return AptSource(uris=(uri,), suites=tuple(suites.split()), components=tuple(components.split()))


def test_deb822_keeps_enabled_binary_archives_only() -> None:
    """Disabled stanzas and source archives are left out; continued fields and comments are understood."""
    (found,) = parse_deb822(DEB822)
    assert found == AptSource(
        uris=("http://mirror.test/debian", "http://second.test/debian"),
        suites=("bookworm", "bookworm-updates"),
        components=("main", "contrib"),
        signed_by="/usr/share/keyrings/x.gpg",
    )


def test_deb822_with_an_embedded_key_names_no_file() -> None:
    """A Signed-By that holds the key itself is no path."""
    text = "Types: deb\nURIs: http://m.test/d\nSuites: sid\nComponents: main\nSigned-By:\n -----BEGIN\n .\n"
    assert parse_deb822(text)[0].signed_by == ""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deb http://m.test/debian bookworm main", ("http://m.test/debian", "bookworm", "")),
        (
            "  deb [arch=amd64 signed-by=/k.gpg] http://m.test/d sid main # x",
            ("http://m.test/d", "sid", "/k.gpg"),
        ),
        ("deb [trusted=yes] file:/srv/debian stable main", ("file:/srv/debian", "stable", "")),
    ],
)
def test_one_line_format(line: str, expected: tuple[str, str, str]) -> None:
    """A deb line gives its address, its suite and the keyring among its options."""
    (found,) = parse_one_line(line)
    assert (found.uris[0], found.suites[0], found.signed_by) == expected


@pytest.mark.parametrize(
    "line", ["# deb http://m.test/d sid main", "deb-src http://m.test/d sid main", "deb", ""]
)
def test_other_lines_are_no_archives(line: str) -> None:
    """Comments, source archives and broken lines are skipped."""
    assert parse_one_line(line) == []


def test_both_formats_are_read_from_their_folders(tmp_path: Path) -> None:
    """sources.list, *.list and *.sources count; a file of another ending does not, as for apt itself."""
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.test/debian sid main\n")
    (parts / "two.list").write_text("deb http://two.test/debian sid main\n")
    (parts / "three.sources").write_text(DEB822)
    (parts / "four.list.disabled").write_text("deb http://four.test/debian sid main\n")
    assert [found.uris[0] for found in host_sources(tmp_path)] == [
        "http://one.test/debian",
        "http://two.test/debian",
        "http://mirror.test/debian",
    ]


def test_suites_of_the_host_become_the_trees(keyring: Path) -> None:
    """The host's release, its updates and its security archive become those of the tree's suite."""
    text = sources_for_suite(
        [
            source("bookworm bookworm-updates bookworm-backports"),
            source("bookworm-security", uri="http://mirror.test/security"),
        ],
        "trixie",
        keyring,
    )
    assert "URIs: http://mirror.test/debian\nSuites: trixie trixie-updates\n" in text
    assert "URIs: http://mirror.test/security\nSuites: trixie-security\n" in text
    assert "bookworm" not in text


def test_archives_of_others_are_left_out(keyring: Path) -> None:
    """A vendor's archive, or one without main, never reaches the tree."""
    text = sources_for_suite(
        [
            source("stable"),
            source("nodistro", uri="http://vendor.test/n"),
            source("sid", components="contrib"),
        ],
        "trixie",
        keyring,
    )
    assert text.count("URIs:") == 1


def test_host_without_debian_is_refused_with_the_fix(keyring: Path) -> None:
    """A host of another distribution is told what to add."""
    with pytest.raises(SandboxUnavailableError, match="add a mirror of Debian"):
        sources_for_suite([source("noble", uri="http://m.test/ubuntu")], "trixie", keyring)


def test_security_alone_is_not_enough(keyring: Path) -> None:
    """A security archive without the release itself cannot make a tree."""
    with pytest.raises(SandboxUnavailableError, match="expected a Debian archive"):
        sources_for_suite([source("bookworm-security")], "trixie", keyring)


def test_missing_keyring_is_refused_with_the_fix(tmp_path: Path) -> None:
    """Without the archive's keys nothing is fetched: the message names the package."""
    with pytest.raises(SandboxUnavailableError, match="apt-get install debian-archive-keyring"):
        sources_for_suite([source("bookworm")], "trixie", tmp_path / "none.gpg")


def test_only_how_to_fetch_is_carried_over() -> None:
    """Proxies, certificates and checks of the host are carried over; what to fetch is not."""
    dump = (
        'Acquire "";\nAcquire::http "";\nAcquire::http::Proxy "http://proxy.test:3142";\n'
        'Acquire::https::CaInfo "/etc/ca.pem";\nAcquire::Check-Valid-Until "false";\n'
        'Acquire::Languages:: "de";\nAPT::Architecture "amd64";\nAcquire::cdrom::mount "/media/cdrom/";\n'
    )
    assert host_options(dump) == [
        'Acquire::http::Proxy "http://proxy.test:3142";',
        'Acquire::https::CaInfo "/etc/ca.pem";',
        'Acquire::Check-Valid-Until "false";',
    ]
