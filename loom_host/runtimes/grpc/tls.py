"""TLS to a remote plugin: the credentials, and what a refused handshake was refused for.

gRPC tells little of a failed handshake; `explain` makes one by Python's own TLS and reads why.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import grpc

from loom_host.endpoint import Endpoint
from loom_sdk.errors import PluginLoadError, PluginUnhealthy

from .resolve import Address

ANSWER_S = 3.0
"""For a connection, and for the first bytes of HTTP/2 on it."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client says first, with empty SETTINGS (RFC 9113, 3.4)."""

_EXPIRED, _NOT_YET = 10, 9
_UNKNOWN_ISSUERS = (2, 18, 19, 20, 21)
_OTHER_NAMES = (62, 64)
"""X509_V_ERR_* of OpenSSL's x509_vfy.h."""


def channel_to(address: Address, endpoint: Endpoint) -> grpc.aio.Channel:
    """An idle channel with a connection of its own. Raises ConfigError where a file is wrong."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if endpoint.tls is None:
        return grpc.aio.insecure_channel(address.uri, options=options)
    pems = endpoint.tls.read()
    options += [
        ("grpc.ssl_target_name_override", address.name),
        ("grpc.default_authority", address.name),
    ]
    credentials = grpc.ssl_channel_credentials(pems.ca, pems.key, pems.cert)
    return grpc.aio.secure_channel(address.uri, credentials, options=options)


async def explain(plugin_id: str, address: Address, endpoint: Endpoint) -> Exception:
    """Why a channel to `address` does not come about.

    Returns:
        PluginUnhealthy where waiting may help, PluginLoadError where somebody must mend it.
    """
    who = f"{plugin_id} at {address}"
    try:
        async with asyncio.timeout(ANSWER_S):
            return await _try(who, plugin_id, address, endpoint)
    except TimeoutError:
        text = f"{who} does not answer within {ANSWER_S:g} s"
        return PluginUnhealthy(text, plugin_id=plugin_id)
    except ssl.SSLError as error:
        return PluginLoadError(f"{who}: {_refusal(error, address, endpoint)}", plugin_id=plugin_id)
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        return PluginUnhealthy(f"{who} is not reached ({why})", plugin_id=plugin_id)


async def _try(who: str, plugin_id: str, address: Address, endpoint: Endpoint) -> Exception:
    host, port = address.target.host, address.target.port
    context = _context(endpoint)
    name = address.name if context is not None else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    try:
        writer.write(PREFACE)
        answer = await reader.read(64)
    except ConnectionError:  # how a certificate is refused after its own handshake has ended
        answer = b""
    finally:
        writer.transport.abort()
    if answer:
        text = f"{who} answers, but opened no HTTP/2 in time: look at its own output"
        return PluginUnhealthy(text, plugin_id=plugin_id)
    return PluginLoadError(f"{who} {_hung_up(endpoint)}", plugin_id=plugin_id)


def _context(endpoint: Endpoint) -> ssl.SSLContext | None:
    files = endpoint.tls
    if files is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.ca)
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(files.cert, files.key, password=lambda: "")
    return context


def _hung_up(endpoint: Endpoint) -> str:
    if endpoint.tls is None:
        return "hung up on plaintext: it wants tls = { ca = ..., cert = ..., key = ... }"
    return (
        f"refuses the certificate {endpoint.tls.cert}: let the CA sign it that the plugin's "
        "--client-ca names, or give the plugin that CA"
    )


def _refusal(error: ssl.SSLError, address: Address, endpoint: Endpoint) -> str:
    assert endpoint.tls is not None
    ca, cert = endpoint.tls.ca, endpoint.tls.cert
    code = getattr(error, "verify_code", None)
    if code == _EXPIRED:
        return "its certificate (--cert there) has expired: renew it"
    if code == _NOT_YET:
        return "its certificate (--cert there) is not valid yet: set both machines' clocks"
    if code in _UNKNOWN_ISSUERS:
        return (
            f"its certificate is not signed by a CA in {ca}: put the CA's certificate there that "
            "signed it"
        )
    if code in _OTHER_NAMES:
        return (
            f"its certificate is not for {address.name}: issue it with that name, or write the "
            "name that it bears as `name` in tls"
        )
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "it speaks plaintext: start it with --cert, --key and --client-ca"
    return f"the TLS handshake failed ({error.reason or error}): look at {cert} and {ca}"
