"""TLS of a plugin that listens: hosts must show a certificate, and renewed files are taken up."""

from __future__ import annotations

import sys
from typing import Any

import grpc

from .certificates import TlsFiles
from .errors import LoomError


def server_credentials(files: TlsFiles) -> Any:
    """Credentials that read changed files again before the next handshake.

    Raises:
        ConfigError: names the file that is wrong.
    """
    renewal = _Renewal(files)
    return grpc.dynamic_ssl_server_credentials(renewal.configuration(), renewal.fetch, True)


class _Renewal:
    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen: tuple[int, ...] = ()

    def configuration(self) -> Any:
        self._seen = self._stamp()
        pems = self._files.read()
        return grpc.ssl_server_certificate_configuration([(pems.key, pems.cert)], pems.ca)

    def fetch(self) -> Any:
        """At each handshake: a new configuration, or None to keep what there is."""
        try:
            return self.configuration() if self._stamp() != self._seen else None
        except (OSError, LoomError) as error:
            print(f"the certificates were kept as they were: {error}", file=sys.stderr, flush=True)
            return None

    def _stamp(self) -> tuple[int, ...]:
        files = self._files
        return tuple(p.stat().st_mtime_ns for p in (files.ca, files.cert, files.key) if p.exists())
