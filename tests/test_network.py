"""Rules of `network` grants, URLs and addresses: what is covered, what has one reading only."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.network import (
    Rule,
    canonical_host,
    covers,
    is_literal,
    is_public,
    parse_rule,
    parse_url,
    plain,
    request_rule,
)


@pytest.mark.parametrize(
    ("rule", "method", "url", "permitted"),
    [
        ("https://api.x.org", "GET", "https://api.x.org/a?b", True),
        ("https://api.x.org", "DELETE", "https://API.x.org.:443/", True),
        ("https://api.x.org", "GET", "http://api.x.org/", False),
        ("https://api.x.org", "GET", "https://api.x.org:8443/", False),
        ("https://api.x.org", "GET", "https://api.x.org.evil.net/", False),
        ("https://api.x.org", "GET", "https://evil-api.x.org/", False),
        ("https://*.x.org", "GET", "https://a.b.x.org/", True),
        ("https://*.x.org", "GET", "https://x.org/", False),
        ("https://*.x.org", "GET", "https://evilx.org/", False),
        ("https://*.x.org:8443", "GET", "https://a.x.org:8443/", True),
        ("https://*.x.org:8443", "GET", "https://a.x.org/", False),
        ("https://x.org:*", "GET", "https://x.org:1/", True),
        ("GET https://x.org", "GET", "https://x.org/", True),
        ("GET https://x.org", "POST", "https://x.org/", False),
        ("GET,POST https://x.org", "POST", "https://x.org/", True),
        ("https://*", "GET", "https://x.org/", True),
        ("https://*", "GET", "https://8.8.8.8/", True),
        ("https://*", "GET", "https://x.org:444/", False),
        ("*", "PUT", "http://x.org:444/", True),
        ("*", "GET", "http://127.0.0.1/", False),
        ("*", "GET", "http://localhost/", False),
        ("http://*:*", "GET", "http://[::1]:80/", False),
        ("http://127.0.0.1", "GET", "http://127.0.0.1/", True),
        ("http://127.0.0.1", "GET", "http://[::ffff:127.0.0.1]/", True),
        ("http://[::ffff:127.0.0.1]:*", "GET", "http://127.0.0.1:9/", True),
        ("http://[::1]:8000", "GET", "http://[0:0:0:0:0:0:0:1]:8000/", True),
    ],
)
def test_a_request_is_covered(rule: str, method: str, url: str, permitted: bool) -> None:
    assert parse_rule(rule).covers(request_rule(method, parse_url(url))) == permitted


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("https://*.x.org", "https://a.x.org"),
        ("https://*.x.org", "https://*.a.x.org"),
        ("https://x.org:*", "GET https://x.org:8443"),
        ("GET,POST https://x.org", "GET https://x.org"),
        ("*", "https://*:*"),
    ],
)
def test_a_wider_rule_covers_a_narrower_one_and_not_the_reverse(wide: str, narrow: str) -> None:
    assert covers(wide, narrow)
    assert not covers(narrow, wide)


def test_a_star_is_narrowed_to_an_address_inside_but_does_not_cover_it() -> None:
    assert not covers("http://*:*", "http://localhost:8080")
    assert covers("http://*:*", "http://localhost:8080", inward=True)
    assert not covers("no rule", "http://a")


@pytest.mark.parametrize(
    "text",
    [
        "", "x.org", "ftp://x.org", "https://", "https://x.org/path", "https://x.org:0",
        "https://x.org:65536", "get https://x.org", "TRACE https://x.org", "https://*.1.2.3.4",
        "https://a*.x.org", "https://127.1", "https://0x7f000001", "https://2130706433",
        "https://0177.0.0.1", "https://[::1%eth0]", "https://ex\u00e4mple.org", "https://a b",
        "GET  https://x.org", "https://u@x.org",
    ],
)  # fmt: skip
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_rule(text)


@pytest.mark.parametrize(
    "url",
    [
        "", "ftp://a", "//a", "a", "http://", "http:///a", "file:///etc/passwd", "http://a:x/",
        "http://a:0/", "http://a:99999/", "http://[1", "http://[::1]evil/", "http://[v1.a]/",
        "http://a[::1]/", "http://[::1%25lo]/", "http://u@a/",
        "http://u:p@a/", "http://@a/", "http://a\\@b/", "http://a\r\nX: y/", "http://a\tb/",
        "http://a\0/", " http://a/\n", "http://a b/", "http://%31.2.3.4/", "http://a..b/",
        "http://" + "a" * 64 + ".org/", "http://\uff11\uff12\uff17.0.0.1/", "http://\u2460.org/",
        "http://127.0.0.1\u3002/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/",
        "http://0177.0.0.1/", "http://127.1/", "http://127.0.0.01/", "http://1.2.3.4.5/",
        "http://127.0.0.0x1/", "http://a/" + "x" * 9000,
    ],
)  # fmt: skip
def test_what_is_no_url_is_told_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        parse_url(url)
    assert url == "" or url not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://api.example/x?y#z", "https://api.example", "/x?y"),
        ("HTTPS://API.Example:443", "https://api.example", "/"),
        ("http://a:8080?q", "http://a:8080", "/?q"),
        ("http://[::1]:8080/", "http://[::1]:8080", "/"),
        ("http://[::FFFF:1.2.3.4]/", "http://1.2.3.4", "/"),
        ("http://a./", "http://a", "/"),
    ],
)
def test_urls(url: str, origin: str, target: str) -> None:
    parsed = parse_url(url)
    assert (parsed.origin, parsed.target) == (origin, target)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.255", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.0.1",
        "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1",
        "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::",
        "2001::1", "2001:db8::1", "3fff::1", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1",
        "100::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1", "64:ff9b::808:808", "2002:808:808::"],
)
def test_public_addresses(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(ADDRESSES)
def test_no_address_that_python_knows_as_private_is_public(address: object) -> None:
    assert isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
    inner = plain(address)
    if is_public(address):
        kinds = ("private", "loopback", "link_local", "multicast", "unspecified")
        assert not [kind for kind in kinds if getattr(inner, f"is_{kind}")]


@given(ADDRESSES)
def test_every_address_has_one_form(address: object) -> None:
    assert isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
    host = canonical_host(f"[{address}]" if address.version == 6 else str(address))
    assert is_literal(host)
    assert ipaddress.ip_address(host) == plain(address)


@given(st.text(max_size=30).map(lambda tail: "http://" + tail))
def test_any_text_is_a_url_or_is_told(url: str) -> None:
    try:
        parsed = parse_url(url)
    except ValueError as error:
        assert str(error)
    else:
        assert parse_url(f"{parsed.origin}{parsed.target}") == parsed


@given(st.text(alphabet="htps:/*.a1[]G,E T80", max_size=24))
def test_a_rule_that_is_one_covers_itself(text: str) -> None:
    try:
        rule = parse_rule(text)
    except ValueError:
        return
    assert isinstance(rule, Rule)
    assert rule.covers(rule, inward=True)
