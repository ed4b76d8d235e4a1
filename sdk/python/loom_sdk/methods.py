"""Which handler serves which method of a child's server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc


class Methods(grpc.GenericRpcHandler):
    """Full method name to handler. The generated `add_..._to_server` fill it like a server.

    Args:
        late: what makes further methods whose names begin with the key, at their first call.
    """

    def __init__(self, late: Mapping[str, Callable[[Methods], None]]) -> None:
        self._handlers: dict[str, Any] = {}
        self._late = dict(late)

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """The nameless half of what the generated code registers; the other has all of it."""

    def add_registered_method_handlers(self, service: str, methods: Mapping[str, Any]) -> None:
        self._handlers |= {f"/{service}/{name}": handler for name, handler in methods.items()}

    def service(self, details: Any) -> Any:
        for prefix in tuple(self._late):
            if details.method.startswith(prefix):
                self._late.pop(prefix)(self)
        return self._handlers.get(details.method)
