"""How the tools of a host say where their packages come from."""

import base64
from pathlib import Path

import pytest

from sandbox.egress.registry import Credentials, RegistryConfigError, RegistryKind
from sandbox.egress.tools import composer, go, maven, npm, pip, swift
from sandbox.egress.tools.found import found_registry, numbered


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder without anything in it, and no tool on the path."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    return tmp_path


def test_login_in_an_address_is_taken_out() -> None:
    """A user and a password in an address become credentials, decoded, and the registry is private."""
    found = found_registry(RegistryKind.PYPI, "https://ann:p%40ss@a.test/simple")
    assert found.base_url == "https://a.test/simple"
    assert found.credentials == Credentials(username="ann", password="p@ss")
    assert found.is_private


def test_netrc_is_looked_into(own_home: Path) -> None:
    """A host that stands in .netrc gets that login, another one none."""
    (own_home / ".netrc").write_text("machine a.test login ann password secret\n")
    assert found_registry(RegistryKind.GO, "https://a.test").credentials == Credentials(
        username="ann", password="secret"
    )
    assert found_registry(RegistryKind.GO, "https://b.test").credentials is None


def test_registries_of_a_kind_are_numbered() -> None:
    """The first has the name of its kind."""
    assert [numbered(RegistryKind.GO, position) for position in range(3)] == ["go", "go-2", "go-3"]


def test_pip_lets_the_environment_win() -> None:
    """Of several places that name an index, the environment's is taken; other commands' sections are not."""
    said = (
        "global.index-url='https://global.test/simple'\n:env:.index-url='https://env.test/simple'\n"
        "download.index-url='https://download.test/simple'\nglobal.extra-index-url='\\nhttps://x.test/ https://y.test/'\n"
        "global.cert='/ca.pem'\nnonsense\n"
    )
    assert pip.parse_config(said) == {
        "index-url": "https://env.test/simple",
        "extra-index-url": "\nhttps://x.test/ https://y.test/",
        "cert": "/ca.pem",
    }


def test_pip_says_its_own_default() -> None:
    """The help names the index that is taken when nothing is configured, also where its lines are broken."""
    text = "  -i, --index-url <url>   Base URL of the index\n   (default\n   https://d.test/simple). This\n"
    assert pip.default_index(text) == ["https://d.test/simple"]
    assert pip.default_index("no such option") == []


def test_uv_has_its_own_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uv's variables come before pip's configuration; its names for indexes are left out."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.test/simple")
    monkeypatch.setenv("UV_INDEX", "inner=https://inner.test/simple")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.executable", "/does/not/exist")
    assert [(each.name, each.base_url) for each in pip.registries()] == [
        ("pypi", "https://uv.test/simple"),
        ("pypi-2", "https://inner.test/simple"),
    ]


def test_npm_reads_registries_scopes_and_logins(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without npm its file still says where packages come from, and with which login."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("TOKEN", "from-variable")
    (own_home / ".npmrc").write_text(
        "; comment\nregistry=https://a.test/npm/\n@acme:registry = https://b.test/\n"
        "//a.test/npm/:_authToken=${TOKEN}\n//b.test/:username=ann\n"
        f"//b.test/:_password={base64.b64encode(b'secret').decode()}\n"
    )
    main, scoped = npm.registries()
    assert (main.name, main.base_url, main.scope) == ("npm", "https://a.test/npm/", "")
    assert main.credentials == Credentials(token="from-variable")
    assert (scoped.name, scoped.base_url, scoped.scope) == ("npm-acme", "https://b.test/", "@acme")
    assert scoped.credentials == Credentials(username="ann", password="secret")


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("https://a.test/x/y/", "deep"),
        ("https://a.test/x/", "host"),
        ("https://a.test:8443/", ""),
        ("https://b.test/", ""),
    ],
)
def test_npm_login_belongs_to_the_longest_path(url: str, token: str) -> None:
    """A token for a folder is not sent to another folder, port or host."""
    npmrc = {"//a.test/:_authToken": "host", "//a.test/x/y/:_authToken": "deep"}
    found = npm.credentials_for(url, npmrc)
    assert (found.token if found else "") == token


def test_npm_password_that_is_not_base64_is_told() -> None:
    """A login that cannot be read is an error, not a request without one; the password is not repeated."""
    with pytest.raises(RegistryConfigError, match="base64") as caught:
        npm.credentials_for("https://a.test/", {"//a.test/:_auth": "pl*in"})
    assert "pl*in" not in str(caught.value)


@pytest.mark.parametrize(
    ("goproxy", "urls"),
    [
        ("https://a.test,direct", ["https://a.test"]),
        ("https://a.test|https://b.test,off,https://c.test", ["https://a.test", "https://b.test"]),
        ("file:///srv/go", ["file:///srv/go"]),
        ("direct", []),
        ("off", []),
        ("", []),
    ],
)
def test_go_proxies_end_at_direct_or_off(goproxy: str, urls: list[str]) -> None:
    """What a mirror can serve is what comes before `direct` and `off`."""
    assert [each.base_url for each in go.parse({"GOPROXY": goproxy})] == urls


def test_go_keeps_its_checksum_database() -> None:
    """What the go command would check here is checked inside as well."""
    (found,) = go.parse({"GOPROXY": "https://a.test", "GOSUMDB": "sum.test", "GOPRIVATE": "corp.test"})
    assert found.environment == {"GOSUMDB": "sum.test", "GONOSUMDB": "corp.test"}


SETTINGS = """<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0">
<servers><server><id>corp</id><username>ann</username><password>${env.PASSWORD}</password></server></servers>
<mirrors>
  <mirror><id>blocker</id><mirrorOf>external:http:*</mirrorOf><url>http://0.0.0.0/</url><blocked>true</blocked></mirror>
  <mirror><id>corp</id><mirrorOf>*,!local</mirrorOf><url>https://corp.test/maven</url></mirror>
</mirrors>
<profiles><profile><id>on</id><repositories>
  <repository><id>local</id><url>file:///srv/maven</url></repository>
  <repository><id>plain</id><url>http://plain.test/</url></repository>
</repositories></profile>
<profile><id>off</id><repositories><repository><id>o</id><url>https://off.test/</url></repository></repositories></profile>
</profiles><activeProfiles><activeProfile>on</activeProfile></activeProfiles></settings>"""


def test_maven_mirrors_take_the_place_of_what_they_mirror() -> None:
    """A mirror of everything stands for central, with its server's login; exceptions and blocks are kept."""
    found = maven.parse([SETTINGS], "https://central.test/maven2", {"PASSWORD": "secret"})
    assert [(each.name, each.base_url) for each in found] == [
        ("maven", "https://corp.test/maven"),
        ("maven-2", "file:///srv/maven"),
    ]
    assert found[0].credentials == Credentials(username="ann", password="secret")


def test_maven_without_settings_asks_its_own_central() -> None:
    """Maven's built-in repository is asked where nothing is configured, and none where there is no Maven."""
    assert [each.base_url for each in maven.parse([], "https://central.test/maven2", {})] == [
        "https://central.test/maven2"
    ]
    assert maven.parse([], "", {}) == []


@pytest.mark.parametrize("text", ["<settings>", SETTINGS.replace("${env.PASSWORD}", "{COQLCE6DU6GtcS5P=}")])
def test_maven_settings_that_cannot_be_used_are_told(text: str) -> None:
    """A file that is no XML, or a password that only Maven can read, is an error with its reason."""
    with pytest.raises(RegistryConfigError, match="registry maven"):
        maven.parse([text], "https://central.test/maven2", {})


def test_composer_listing_and_files(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repositories of the type composer are taken from what the tool prints, or from its files."""
    listing = (
        "[repositories.packagist.org.type] composer\n[repositories.packagist.org.url] https://packagist.test\n"
        "[repositories.vcs.type] vcs\n[repositories.vcs.url] https://git.test/x\n[process-timeout] 300\n"
    )
    assert composer.parse_listing(listing) == ["https://packagist.test"]
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("COMPOSER_HOME", str(own_home))
    (own_home / "config.json").write_text(
        '{"repositories": [{"type": "composer", "url": "https://c.test"}, {"type": "path", "url": "/x"}]}'
    )
    (own_home / "auth.json").write_text(
        '{"http-basic": {"c.test": {"username": "ann", "password": "secret"}}}'
    )
    (found,) = composer.registries()
    assert (found.base_url, found.credentials) == (
        "https://c.test",
        Credentials(username="ann", password="secret"),
    )


def test_swift_registries_with_the_default_first() -> None:
    """SwiftPM's file names a default and scopes."""
    text = '{"version": 1, "registries": {"acme": {"url": "https://a.test"}, "[default]": {"url": "https://d.test"}}}'
    assert [(each.name, each.scope, each.base_url) for each in swift.parse(text)] == [
        ("swift", "", "https://d.test"),
        ("swift-acme", "acme", "https://a.test"),
    ]
    with pytest.raises(RegistryConfigError, match=r"registries\.json"):
        swift.parse('{"version": 1}')


def test_unconfigured_tools_have_no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a tool is neither there nor configured, no address is made up."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.executable", "/does/not/exist")
    for name in (
        "UV_DEFAULT_INDEX",
        "UV_INDEX_URL",
        "UV_INDEX",
        "UV_EXTRA_INDEX_URL",
        "GOPROXY",
        "COMPOSER_HOME",
    ):
        monkeypatch.delenv(name, raising=False)
    tools = (pip, npm, go, maven, composer, swift)
    assert [list(tool.registries()) for tool in tools] == [[]] * len(tools)
