"""Reads where the host takes Debian's packages from, so that a tree comes from the same place.

Invariant: no address of a mirror stands in this package: without a Debian source on the host there is none.
"""

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxUnavailableError

__all__ = ["AptSource", "host_options", "host_sources", "parse_deb822", "parse_one_line", "sources_for_suite"]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_CODENAMES = "oldoldstable|oldstable|stable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky|duke"
_DEBIAN_SUITE = re.compile(rf"^(?:{_CODENAMES})(?P<pocket>-security|-updates|/updates)?$")
# What the host says about how to fetch; the rest of Acquire is about what, and is ours to say.
_CARRIED_OPTIONS = re.compile(
    r"^Acquire::(?:(?:http|https|ftp|tor)(?:::|\s)|Check-Valid-Until|Check-Date|Max-ValidTime|Retries|"
    r"ForceIPv4|ForceIPv6|Queue-Mode|Source-Symlinks|AllowInsecureRepositories)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AptSource:
    """One archive: where it is, which suites and components of it, and the keyring that signs it."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def host_sources(etc_apt: Path = Path("/etc/apt")) -> tuple[AptSource, ...]:
    """Read every enabled archive of the host, in both formats that apt knows (``sources.list(5)``)."""
    found: list[AptSource] = []
    one_line = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*.list"))]
    for path in one_line:
        if path.is_file():
            found += parse_one_line(path.read_text(encoding="utf-8", errors="replace"))
    for path in sorted((etc_apt / "sources.list.d").glob("*.sources")):
        found += parse_deb822(path.read_text(encoding="utf-8", errors="replace"))
    return tuple(found)


def parse_one_line(text: str) -> list[AptSource]:
    """Parse ``deb [options] uri suite components...`` lines."""
    found = []
    for line in text.splitlines():
        match = re.match(r"^\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<rest>[^#]+)", line)
        words = match["rest"].split() if match else []
        if match is None or len(words) < 2:  # noqa: PLR2004 - an address and a suite
            continue
        signed = re.search(r"signed-by=(\S+)", match["options"] or "", re.IGNORECASE)
        found.append(
            AptSource(
                uris=(words[0],),
                suites=(words[1],),
                components=tuple(words[2:]),
                signed_by=signed[1] if signed else "",
            )
        )
    return found


def parse_deb822(text: str) -> list[AptSource]:
    """Parse stanzas of ``Types``, ``URIs``, ``Suites``, ``Components``, ``Signed-By`` and ``Enabled``."""
    found = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t") and last:
                fields[last] += "\n" + line.strip()
            elif ":" in line:
                last, _, value = line.partition(":")
                last = last.strip().lower()
                fields[last] = value.strip()
        is_enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0", "off")
        if is_enabled and "deb" in fields.get("types", "").split() and fields.get("uris"):
            signed = fields.get("signed-by", "")
            found.append(
                AptSource(
                    uris=tuple(fields["uris"].split()),
                    suites=tuple(fields.get("suites", "").split()),
                    components=tuple(fields.get("components", "").split()),
                    signed_by=signed if signed.startswith("/") else "",
                )
            )
    return found


def sources_for_suite(found: Iterable[AptSource], suite: str, keyring: Path = KEYRING) -> str:
    """Write the Debian archives among ``found`` for another suite, as a deb822 file.

    Security and update pockets of the host become those of the suite. The keyring is Debian's own archive
    keyring, unless the host names another file.

    Raises:
        SandboxUnavailableError: the host has no Debian archive, or no keyring for it.
    """
    stanzas = []
    for source in found:
        pockets = [match["pocket"] or "" for name in source.suites if (match := _DEBIAN_SUITE.match(name))]
        if not pockets or "main" not in source.components:
            continue
        signed_by = (
            source.signed_by if Path(source.signed_by).is_file() and source.signed_by else str(keyring)
        )
        if not Path(signed_by).is_file():
            raise SandboxUnavailableError(
                f"language tree: the keyring of Debian's archive is missing ({signed_by}); "
                "run: apt-get install debian-archive-keyring"
            )
        names = dict.fromkeys(suite + pocket.replace("/updates", "-security") for pocket in pockets)
        stanzas.append(
            f"Types: deb\nURIs: {' '.join(source.uris)}\nSuites: {' '.join(names)}\n"
            f"Components: main\nSigned-By: {signed_by}\n"
        )
    if not any(re.search(rf"^Suites:.* {suite}( |$)", stanza, re.MULTILINE) for stanza in stanzas):
        raise SandboxUnavailableError(
            "language tree: expected a Debian archive among the host's apt sources (/etc/apt/sources.list "
            "and sources.list.d), found none; add a mirror of Debian there, or use the host tree"
        )
    return "\n".join(dict.fromkeys(stanzas))


def host_options(dump: str | None = None) -> Sequence[str]:
    """Return the host's options of how to fetch (proxies, certificates, retries), as apt writes them.

    Args:
        dump: what ``apt-config dump`` printed; None to ask it.
    """
    if dump is None:
        done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
        dump = done.stdout
    return [line for line in dump.splitlines() if _CARRIED_OPTIONS.match(line) and not line.endswith('"";')]
