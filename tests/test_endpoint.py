"""Addresses of remote plugins: every way to write them, and every wrong one with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host.config import parse_settings
from loom_host.endpoint import Target, parse_address
from loom_sdk.errors import ConfigError

TLS = {"ca": "ca.pem", "cert": "host.pem", "key": "/keys/host.key"}


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("dns:///stt.example:50051", [("stt.example", 50051)]),
        ("dns:stt.example:50051", [("stt.example", 50051)]),
        ("stt.example:50051", [("stt.example", 50051)]),
        ("stt:1", [("stt", 1)]),
        ("10.0.0.7:50051", [("10.0.0.7", 50051)]),
        ("[::1]:50051", [("::1", 50051)]),
        ("ipv4:10.0.0.7:1,10.0.0.8:2", [("10.0.0.7", 1), ("10.0.0.8", 2)]),
        ("ipv6:[fd00::1]:1,[fd00::2]:1", [("fd00::1", 1), ("fd00::2", 1)]),
    ],
)
def test_grpc_names_of_addresses_are_read(text: str, targets: list[tuple[str, int]]) -> None:
    assert parse_address(text) == tuple(Target(*target) for target in targets)


@pytest.mark.parametrize(
    "text",
    [
        "", "stt.example", "stt.example:", "stt.example:0", "stt.example:65536", ":50051",
        "unix:/run/x.sock", "xds:///stt", "dns://8.8.8.8/stt:1", "ipv4:stt.example:1",
        "ipv4:[::1]:1", "ipv6:10.0.0.7:1", "ipv4:10.0.0.7:1,10.0.0.7:1", "::1:50051", "a b:1",
        "https://stt.example:1", "10.0.0:1", "stt..example:1", "[stt]:1", "ipv4:10.0.0.7:1,",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_address(text)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        targets = parse_address(text)
    except ValueError:
        return
    assert all(1 <= target.port <= 65535 and target.host for target in targets)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_a_literal_address_comes_back_as_it_was_written(ip: Any, port: int) -> None:
    written = str(Target(str(ip), port))
    assert parse_address(written) == (Target(str(ip), port),)
    (target,) = parse_address(f"ipv{ip.version}:{written}")
    assert target.literal
    assert target.loopback is ip.is_loopback


def settings(**table: Any) -> Any:
    return parse_settings({"plugins": {"stt": table}}, Path("/etc/loom/loom.toml")).plugins["stt"]


def test_files_of_tls_are_relative_to_loom_toml() -> None:
    own = settings(address="dns:///stt.example:50051", tls={**TLS, "name": "stt"})
    assert own.tls == {
        "ca": "/etc/loom/ca.pem", "cert": "/etc/loom/host.pem", "key": "/keys/host.key",
        "name": "stt",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"address": "stt.example:50051"}, "ca, cert, key is missing"),
        ({"address": "stt.example:1", "tls": {"ca": "x"}}, "cert, key is missing"),
        ({"address": "stt.example:1", "insecure": True}, "is not on this machine"),
        ({"address": "10.0.0.7:1", "insecure": True}, "is not on this machine"),
        ({"address": "127.0.0.1:1", "insecure": True, "tls": TLS}, "remove one of the two"),
        ({"address": "stt.example", "tls": TLS}, "write dns:///NAME:PORT"),
        ({"address": "stt.example:1", "tls": {**TLS, "cret": "x"}}, "did you mean 'cert'"),
        ({"address": "stt.example:1", "tls": {**TLS, "ca": 7}}, "must be a text"),
        ({"address": "stt.example:1", "tls": TLS, "keepalive_s": 0}, "keepalive_s = 0"),
        ({"address": "stt.example:1", "tls": TLS, "sandbox": "strict"}, "sandbox: has no meaning"),
        ({"address": "stt.example:1", "tls": TLS, "folders": {"a": "b"}}, "folders: has no"),
        ({"tls": TLS}, "tls: is for a plugin with an `address`"),
        ({"insecure": True}, "insecure: is for a plugin with an `address`"),
        ({"address": 7}, "address = 7"),
    ],
)
def test_wrong_settings_name_the_key_and_what_to_do(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        settings(**table)
    assert "[plugins.stt]" in caught.value.message


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "ipv4:127.0.0.2:1"])
def test_plaintext_is_for_this_machine(address: str) -> None:
    assert settings(address=address, insecure=True).insecure
