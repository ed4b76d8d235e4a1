"""Grants of sockets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_host import sockets
from loom_host.grants import grant, missing
from loom_host.manifest import Permissions
from loom_host.runtimes.grpc.reach import reach_of
from tests.hosting import handle_of


def test_what_is_a_socket_and_what_is_for_http() -> None:
    assert sockets.is_socket("unix:/run/x.sock")
    assert sockets.is_socket("tcp:db:5432")
    assert not sockets.is_socket("https://unix:80")


def test_paths_and_ports() -> None:
    assert sockets.unix_path("unix:/run/x.sock") == Path("/run/x.sock")
    assert sockets.tcp_port("tcp:db.example:5432") == 5432
    assert sockets.tcp_port("tcp:[::1]:80") == 80


@pytest.mark.parametrize(
    "text",
    ["unix:x", "unix:", "unix:/run/../etc/x", "tcp:db", "tcp::1", "tcp:db:0", "tcp:db:65536",
     "tcp:db:x", "tcp:db:٣"],
)  # fmt: skip
def test_what_cannot_be_read_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        sockets.check_ask(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for start in ("unix:", "tcp:"):
        try:
            sockets.check_ask(start + text)
        except ValueError:
            continue
        assert text


def test_a_grant_for_http_never_opens_a_socket() -> None:
    assert sockets.covers("unix:/run/*.sock", "unix:/run/x.sock")
    assert not sockets.covers("*", "unix:/run/x.sock")
    assert not sockets.covers("unix:/run/x.sock", "unix:/run/y.sock")
    assert not sockets.covers("tcp:db:1", "unix:/run/x.sock")


def test_sockets_are_granted_as_asked_and_allowed() -> None:
    asks = Permissions(network=("unix:/run/x.sock", "tcp:db:5432", "https://api.example.com"))
    manifest = handle_of("p", permissions=asks).manifest
    got = grant("p", manifest, {"network": ("unix:/run/x.sock", "https://api.example.com")})
    assert set(got.texts()) == {"network:unix:/run/x.sock", "network:https://api.example.com"}
    assert missing(manifest, got) == [("network", "tcp:db:5432")]
    assert "network" not in grant("p", manifest, {"network": ("*",)}).allowed or not any(
        map(sockets.is_socket, grant("p", manifest, {"network": ("*",)}).allowed["network"])
    )


def test_a_plugin_may_ask_for_any_port_and_is_granted_the_one_that_is_allowed() -> None:
    sockets.check_ask("tcp:*:*")
    wide = reach_of("p", ["network:tcp:*:*", "network:unix:/*"])
    assert (wide.inet, wide.sockets) == (False, [])
    assert reach_of("p", ["network:tcp:*:*", "network:tcp:db:5432"]).ports == [5432]
    manifest = handle_of("p", permissions=Permissions(network=("tcp:*:*",))).manifest
    assert grant("p", manifest, {"network": ("tcp:db:5432",)}).texts() == ("network:tcp:db:5432",)
    assert grant("p", manifest, {"network": ("*", "unix:/run/x.sock")}).texts() == ()
