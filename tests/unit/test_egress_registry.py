"""What belongs to a registry, and how its own addresses are replaced by the mirror's."""

import random

import pytest

from sandbox.egress.ledger import Ledger, MirrorBounds, RefusedError
from sandbox.egress.registry import Credentials, Registry, RegistryConfigError, RegistryKind, clean_path
from sandbox.egress.rewriter import Rewriter

MIRROR = "http://127.0.0.1:8081"


def registry(url: str, kind: RegistryKind = RegistryKind.PYPI, **fields: object) -> Registry:
    return Registry(name="r", kind=kind, base_url=url, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "url", "root", "inside"),
    [
        (RegistryKind.PYPI, "https://a.test/simple", "https://a.test/", "/r/simple"),
        (RegistryKind.PYPI, "https://a.test/root/pypi/+simple/", "https://a.test/root/pypi/", "/r/+simple"),
        (RegistryKind.PYPI, "https://a.test/x/py", "https://a.test/x/py/", "/r"),
        (RegistryKind.NPM, "https://a.test:8443/simple", "https://a.test:8443/simple/", "/r"),
        (RegistryKind.GO, "http://a.test", "http://a.test/", "/r"),
        (RegistryKind.MAVEN, "file:///srv/maven", "file:///srv/maven/", "/r"),
    ],
)
def test_area_of_a_registry_is_its_folder(kind: RegistryKind, url: str, root: str, inside: str) -> None:
    """What is reachable is the registry's own folder; a Python index brings the folder beside it."""
    described = registry(url, kind)
    assert [area.root for area in described.areas] == [root]
    assert described.inside_path == inside


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://a.test/r/x/y?z=1", "x/y?z=1"),
        ("https://A.TEST:443/r/x", "x"),
        ("https://a.test./r/x", "x"),
        ("https://a.test/r/", ""),
        ("https://a.test/rx", None),
        ("https://a.test/r/../x", None),
        ("https://a.test/r/%2e%2e/x", None),
        ("http://a.test/r/x", None),
        ("https://a.test:444/r/x", None),
        ("https://a.test.evil.test/r/x", None),
        ("https://evil.test/https://a.test/r/x", None),
        ("https://a.test@evil.test/r/x", None),
        ("https://u@a.test/r/x", None),
        ("https://a.test:x/r/y", None),
        ("file:///r/x", None),
    ],
)
def test_address_lies_in_an_area_part_by_part(url: str, path: str | None) -> None:
    """Scheme, host, port and folder must all agree; what only looks alike does not."""
    (area,) = registry("https://a.test/r", RegistryKind.GO).areas
    assert area.path_of(url) == path


@pytest.mark.parametrize(
    "path",
    ["six/", "@types%2fnode", "%40types%2Fnode/-/node-1.tgz", "a/b%20c", "rsc.io/!quote/@v/v1.0.0+x.zip", ""],
)
def test_paths_that_tools_ask_for_are_clean(path: str) -> None:
    """Scoped npm names, escaped capitals of Go and spaces pass unchanged."""
    assert clean_path(path) == path


@pytest.mark.parametrize(
    "fields",
    [{"name": "Upper"}, {"name": ""}, {"name": "a/b"}, {"name": "x" * 33}, {"base_url": "ftp://a.test"},
     {"base_url": "https:///x"}, {"base_url": "https://u:secret@a.test"}, {"base_url": "https://a.test/../x"},
     {"base_url": "https://a.test/?q"}, {"base_url": "https://a.test/#f"}, {"download_hosts": ("a.test/x",)},
     {"download_hosts": ("u@a.test",)}, {"download_hosts": ("",)}, {"download_hosts": ("https://a.test",)}],
)  # fmt: skip
def test_registry_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    """What could not be kept to is refused when it is configured; no password is repeated."""
    usual: dict[str, object] = {"name": "r", "kind": RegistryKind.NPM, "base_url": "https://a.test"}
    with pytest.raises(RegistryConfigError) as caught:
        Registry(**(usual | fields))  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def test_credentials_do_not_show() -> None:
    """Neither password nor token nor address stand in a registry's text; the header is right."""
    basic, token = Credentials(username="ann", password="secret"), Credentials(token="secret")
    assert "secret" not in repr((basic, token, registry("https://hidden.test", credentials=basic)))
    assert "hidden" not in repr(registry("https://hidden.test"))
    assert (basic.header(), token.header()) == ("Basic YW5uOnNlY3JldA==", "Bearer secret")


def rewrite(described: Registry, text: str, *, piece: int, from_root: bool = False) -> str:
    rewriter = Rewriter(described.areas, MIRROR, from_root=from_root)
    data = text.encode()
    fed = b"".join(rewriter.feed(data[place : place + piece]) for place in range(0, len(data), piece))
    return (fed + rewriter.finish()).decode()


REWRITTEN = [
    ('"https://a.test/npm/x.tgz"', f'"{MIRROR}/r/x.tgz"'),
    ('"http://a.test/npm/x.tgz"', f'"{MIRROR}/r/x.tgz"'),
    ('"https://a.test:443/npm/x"', f'"{MIRROR}/r/x"'),
    (
        r'"https:\/\/a.test\/npm\/x"',
        f'"{MIRROR}/r/x"'.replace("/r/", "/r\\/").replace("//", "\\/\\/").replace("1/", "1\\/"),
    ),
    ('"https://files.test/f"', f'"{MIRROR}/r~1/f"'),
    ('"https://a.test/other/x"', '"https://a.test/other/x"'),
    ('"https://a.test.evil.test/npm/"', '"https://a.test.evil.test/npm/"'),
    ('"/x"', '"/x"'),
]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("text", "expected"), REWRITTEN)
def test_addresses_are_replaced_wherever_pieces_are_cut(text: str, expected: str, piece: int) -> None:
    """Every spelling of the registry's address becomes the mirror's, however the answer is cut."""
    described = registry("https://a.test/npm", RegistryKind.NPM, download_hosts=("files.test",))
    assert rewrite(described, f"a {text} b {text}", piece=piece) == f"a {expected} b {expected}"


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_addresses_from_the_root_are_replaced_where_asked(piece: int) -> None:
    """``href="/..."`` gets the registry's name in front; an address with another host does not."""
    described = registry("https://a.test/simple")
    text = '<a href="/p/x"> <a href=\'/p/y\'> <a href="//other.test/z"> <a href="q"> 1/2 "a/b"'
    expected = text.replace('"/p', '"/r/p').replace("'/p", "'/r/p")
    assert rewrite(described, text, piece=piece, from_root=True) == expected
    below = registry("https://a.test/deep/simple")
    assert rewrite(below, '"/deep/x" "/other/x"', piece=piece, from_root=True) == '"/r/x" "/other/x"'


def test_rewriting_does_not_depend_on_the_pieces() -> None:
    """Random text, cut at random, comes out as when it is rewritten whole."""
    chance = random.Random(7)
    described = registry("https://a.test/simple", download_hosts=("files.test:8443",))
    parts = [
        "https://",
        "a.test",
        "/",
        "files.test:8443",
        '"',
        "'",
        "\\/",
        "x",
        "https://a.test/",
        "https:\\/\\/a.test\\/",
    ]
    for _ in range(300):
        text = "".join(chance.choice(parts) for _ in range(40))
        whole = rewrite(described, text, piece=10_000, from_root=True)
        assert rewrite(described, text, piece=chance.randint(1, 30), from_root=True) == whole, text


async def test_ledger_counts_before_it_passes() -> None:
    """The piece that passes a bound is refused, and not counted."""
    ledger = Ledger(MirrorBounds(file_bytes=10, session_bytes=15))
    assert await ledger.take("r", 0, 10) == 10
    with pytest.raises(RefusedError, match="a file is larger than 10 bytes"):
        await ledger.take("r", 10, 1)
    with pytest.raises(RefusedError, match="together are larger than 15 bytes"):
        await ledger.take("r", 0, 6)
    assert ledger.total_bytes == 10
