"""What plugins find in the network during a test: pages of conformance.toml, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from loom_host.egress import Egress
from loom_host.grants import Audit, Grants
from loom_host.http_exchange import Sending
from loom_sdk.errors import ActionFailed
from loom_sdk.port import HttpResponse


class Pages(Egress):
    """Checks as the host does, then answers by address instead of sending.

    Args:
        pages: by address, with `*` for any text: a text, or what is sent as JSON.
    """

    def __init__(self, audit: Audit, pages: Mapping[str, Any]) -> None:
        super().__init__(audit)
        self._pages = pages

    async def _hop(self, grants: Grants, sending: Sending) -> HttpResponse:
        """Raises ActionFailed(HTTP_FAILED) where no page has the address."""
        where = sending.url.origin + sending.url.target
        for pattern, page in self._pages.items():
            if fnmatchcase(where, pattern):
                return _answer(page)
        raise ActionFailed(
            f"{sending.method} {sending.url.origin}: no page of conformance.toml has this "
            'address: add it under [pages], such as "https://api.example/*" = { ok = true }',
            code="HTTP_FAILED",
        )


def _answer(page: Any) -> HttpResponse:
    kind = "text/plain; charset=utf-8" if isinstance(page, str) else "application/json"
    body = page if isinstance(page, str) else json.dumps(page)
    return HttpResponse(200, {"content-type": kind}, body.encode())
