"""What an egress policy names, and which addresses a name may lead to."""

import ipaddress

import pytest

from sandbox.egress.policy import (
    Destination,
    EgressPolicy,
    PolicyConfigError,
    is_public,
    parse_destination,
    proxy_environment,
)


def allows(pattern: str, authority: str) -> bool:
    destination = parse_destination(authority)
    return destination is not None and EgressPolicy(name="p", allow=(pattern,)).names(destination)


@pytest.mark.parametrize(
    ("pattern", "authority", "expected"),
    [
        ("a.test:443", "a.test:443", True),
        ("A.Test:443", "a.TEST.:443", True),
        ("a.test:443", "a.test:80", False),
        ("a.test:443", "b.a.test:443", False),
        ("*.a.test:443", "b.a.test:443", True),
        ("*.a.test:443", "c.b.a.test:443", True),
        ("*.a.test:443", "a.test:443", False),
        ("*.a.test:443", "ba.test:443", False),
        ("*.a.test:443", "b.a.test.evil.test:443", False),
        ("192.0.2.7:80", "192.0.2.7:80", True),
        ("192.0.2.7:80", "192.0.2.8:80", False),
        ("192.0.2.0/24:80", "192.0.2.8:80", True),
        ("192.0.2.0/24:80", "[::ffff:192.0.2.8]:80", True),
        ("192.0.2.0/24:80", "192.0.3.8:80", False),
        ("[2001:db8::1]:80", "[2001:DB8:0::1]:80", True),
        ("[2001:db8::/32]:80", "[2001:db8:5::1]:80", True),
        ("[2001:db8::/32]:80", "[2001:db9::1]:80", False),
        ("0.0.0.0/0:80", "[2001:db8::1]:80", False),
        ("localhost:80", "127.0.0.1:80", False),
        ("127.0.0.1:80", "localhost:80", False),
    ],
)
def test_pattern_names_what_it_says_and_no_more(pattern: str, authority: str, expected: bool) -> None:  # noqa: FBT001
    """Names match names, addresses match addresses, the port always counts."""
    assert allows(pattern, authority) is expected


@pytest.mark.parametrize(
    "authority",
    ["a.test", "a.test:", ":80", "a.test:0", "a.test:65536", "a.test:8x", "a test:80", "a.test:80:80",
     "*.test:80", "1.2.3:80", "0x7f.1:80", "2130706433:80", "017700000001:80", "1.2.3.4.:80",
     "a_.t-:80", "-a.test:80", "a..test:80", "[::1:80", "::1:80", "[fe80::1%25eth0]:80",
     "[fe80::1%eth0]:80", "a.test:80/", "u@a.test:80", "a.tést:80", "a\x00.test:80",
     f"{'a' * 64}.test:80", f"{'a.' * 130}test:80", "[a.test]:80", "1.2.3.4%x:80"],
)  # fmt: skip
def test_what_is_no_plain_destination_is_none(authority: str) -> None:
    """Spellings that a resolver might understand, and a policy would not, are no destination at all."""
    assert parse_destination(authority) is None


@pytest.mark.parametrize(
    "pattern",
    ["", "a.test", "*:443", "*.test:443", "*a.test:443", "a.*.test:443", "http://a.test:80", "a.test:0",
     "a.test:99999", "10.0.0.1/8:80", "10.0.0.0/33:80", "[::1]", "1.2.3:80", "a.test:*", "a,b:80"],
)  # fmt: skip
def test_pattern_that_makes_no_sense_is_refused(pattern: str) -> None:
    """A pattern that would name nothing, or much more than it seems, is refused with the policy's name."""
    with pytest.raises(PolicyConfigError, match="egress policy p"):
        EgressPolicy(name="p", allow=(pattern,))


@pytest.mark.parametrize("name", ["", "Api", "a b", "a/b", "x" * 33, "-a"])
def test_name_of_a_policy_is_plain(name: str) -> None:
    """The name stands in results and messages."""
    with pytest.raises(PolicyConfigError):
        EgressPolicy(name=name, allow=())


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "203.0.114.1", "2606:4700::1", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses_are_public(address: str) -> None:
    """Addresses of the internet, and those wrapped in IPv6, may be connected to."""
    assert is_public(ipaddress.ip_address(address))


def test_address_inside_opens_only_by_its_own_name_and_port() -> None:
    """A pattern for a network opens it at that port, and no other."""
    policy = EgressPolicy(name="p", allow=("a.test:80", "10.1.0.0/16:80"))
    inner, other = ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("10.2.2.3")
    assert policy.opens(inner, 80)
    assert not policy.opens(inner, 81)
    assert not policy.opens(other, 80)


def test_environment_names_the_proxy_for_every_kind_of_client() -> None:
    """curl's, Go's and Python's variables, Node's switch and Java's options say the same."""
    environment = proxy_environment(3128)
    assert {environment[name] for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")} == {
        "http://127.0.0.1:3128"
    }
    assert environment["NODE_USE_ENV_PROXY"] == "1"
    assert "-Dhttps.proxyPort=3128" in environment["JDK_JAVA_OPTIONS"]


def test_destination_is_written_as_it_is_asked_for() -> None:
    """IPv6 addresses stand in brackets."""
    assert str(Destination(host="a.test", port=1)) == "a.test:1"
    assert str(Destination(host="::1", port=1)) == "[::1]:1"
