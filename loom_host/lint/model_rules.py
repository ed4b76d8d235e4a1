"""Names of models against the registry."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from loom_host.hints import did_you_mean
from loom_host.models import load_registry

from .finding import Finding, finding
from .python_names import Names, dotted, setting
from .subject import Module, Subject


def model_findings(subject: Subject) -> Iterator[Finding]:
    """Of what `loom_sdk.models.find` is given: a text, or a setting with a default."""
    names, registry = Names(subject.modules.values()), load_registry()
    for module in subject.modules.values():
        for node in _finds(module):
            key = setting(node.args[0])
            if key:
                schema: Mapping[str, Any] = subject.manifest.config_schema.get(key, {})
                line = subject.at("config", key)
                yield from _unknown(schema.get("default"), registry, "plugin.toml", line)
            for text in names.texts(node.args[0]) or () if not key else ():
                yield from _unknown(text, registry, module.file, node.lineno)


def _finds(module: Module) -> Iterator[ast.Call]:
    known = {
        alias.asname or alias.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.module == "loom_sdk.models"
        for alias in node.names
        if alias.name == "find"
    } | {"models.find", "loom_sdk.models.find"}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and dotted(node.func) in known and node.args:
            yield node


def _unknown(
    name: object, registry: Mapping[str, object], file: str, line: int
) -> Iterator[Finding]:
    if not isinstance(name, str) or not name or name.startswith("/") or name in registry:
        return
    hint = did_you_mean(name, registry, "`loom models list` has those that there are")
    what = f"no model is called {name!r}: `loom models pull` cannot fetch it"
    yield finding("model.unknown", what, hint, file, line)
