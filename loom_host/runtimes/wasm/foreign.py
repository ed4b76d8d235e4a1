"""A component that was not written for Loom, behind the exports of `plugin.wit`.

Foreign        its functions and their types, shared by its instances
ForeignGuest   one instance: answers `init`, `invoke` and the rest as a Loom guest would
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from loom_sdk.driver import parse_arguments
from loom_sdk.errors import CapabilityNotFound, InvalidArguments
from loom_sdk.plugin import API_VERSION

from .component_exports import Export, offered
from .component_json import to_values
from .component_output import to_output
from .component_schema import input_schema, output_schema
from .component_types import Function, function_text

_DESCRIPTION = 400

Path = tuple[str, ...]
Run = Callable[[Path, tuple[Any, ...]], Any]
"""Calls the exported function at a path with component values."""


class Foreign:
    """The functions of a component."""

    def __init__(self, exports: list[Export]) -> None:
        self.exports = exports
        self.functions = {
            export.path: export.function for export in exports if export.function is not None
        }


class ForeignGuest:
    """Answers calls of `plugin.wit` for one instance; `run` reaches into the component."""

    def __init__(self, foreign: Foreign, run: Run) -> None:
        self._foreign, self._run = foreign, run
        self._offered: Mapping[str, Export] = {}

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """What the export of `plugin.wit` would have answered.

        Raises:
            CapabilityNotFound, InvalidArguments: by `invoke`, before the component is called.
            ActionFailed: the function returned the error side of a `result`.
        """
        if name == "init":
            return self._init(*arguments)
        if name == "invoke":
            return self._invoke(*arguments)
        if name == "health":
            return {"healthy": True, "message": "", "memory-bytes": 0}
        return 0 if name == "handle-event" else None

    def _init(self, request: dict[str, Any]) -> dict[str, Any]:
        plugin = request["plugin-id"].rpartition("/")[2]
        self._offered, _ = offered(self._foreign.exports, plugin)
        return {
            "api-version": API_VERSION,
            "capabilities": [_descriptor(*item) for item in self._offered.items()],
            "subscriptions": [],
            "inferred": True,
        }

    def _invoke(self, call: dict[str, Any]) -> dict[str, Any]:
        export = self._offered.get(call["capability"])
        if export is None or export.function is None:
            raise CapabilityNotFound(f"the component exports no {call['capability']!r}")
        if call["payload"]:
            raise InvalidArguments(
                f"{call['capability']} takes no payload: it was not written for Loom; send binary "
                "as base64 in a list<u8> argument, where it has one"
            )
        values = to_values(export.function, parse_arguments(call["arguments"]))
        began = time.monotonic()
        answer = self._run(export.path, values)
        elapsed_us = int((time.monotonic() - began) * 1_000_000)
        return {
            "output": json.dumps(to_output(export.function, answer)),
            "payload": b"",
            "content-type": "",
            "elapsed-us": elapsed_us,
        }


def _descriptor(name: str, export: Export) -> dict[str, Any]:
    """A `capability-descriptor`. Nothing tells what it does to the world: effects are `once`."""
    function = export.function
    assert function is not None, "what is offered is a function"
    return {
        "name": name,
        "description": _description(export.path[-1], function),
        "tool": True,
        "effects": "once",
        "input-schema": json.dumps(input_schema(function)),
        "output-schema": json.dumps(output_schema(function)),
        "resumable": False,
        "version": export.version,
    }


def _description(name: str, function: Function) -> str:
    """The signature: a component's types carry no words."""
    text = f"{name}: {function_text(function)}"
    return text if len(text) <= _DESCRIPTION else text[:_DESCRIPTION] + "..."
