"""One finding, and every rule that there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ERROR, WARNING = "error", "warning"

RULES: Mapping[str, tuple[str, str]] = {
    "manifest.unreadable": (ERROR, "plugin.toml is missing, or is not TOML"),
    "manifest.unknown-key": (ERROR, "a key or quota that no plugin.toml has"),
    "manifest.value": (ERROR, "a value that the host refuses: of a tier, id, topic, pattern ..."),
    "manifest.version": (WARNING, "the version is not that of Semantic Versioning"),
    "manifest.licence": (WARNING, "no license: nobody may use it, and no package can be made"),
    "quotas.unset": (WARNING, "no memory or deadline_ms of its own: the defaults are generous"),
    "capability.description": (WARNING, "a tool that does not say what it does: no model finds it"),
    "capability.effects": (WARNING, "a tool that does not say its effects: once, so it asks first"),
    "schema.invalid": (ERROR, "what should be a JSON Schema is none"),
    "schema.default": (ERROR, "a default in [config] that its own schema refuses"),
    "schema.example": (ERROR, "an example that does not fit the capability's input or output"),
    "entry.missing": (ERROR, "the file or module that entry names is not in the folder"),
    "entry.class": (ERROR, "entry names no class, or one that is no loom_sdk.Plugin"),
    "entry.not-a-component": (ERROR, "the .wasm that entry names is none that a host would load"),
    "entry.not-built": (WARNING, "what entry names is not built, or older than its sources"),
    "code.syntax": (ERROR, "a file of Python that does not compile"),
    "code.capability": (ERROR, "offered by the code or listed in plugin.toml, but not both"),
    "code.subscription": (ERROR, "heard by the code or listed in plugin.toml, but not both"),
    "code.effects": (WARNING, "the code says other effects than plugin.toml, which holds"),
    "permission.missing": (ERROR, "used by the code, not asked for in plugin.toml"),
    "permission.unused": (WARNING, "asked for in plugin.toml, not used by the code"),
    "import.tier": (ERROR, "an import that a tier which the plugin claims cannot have"),
    "import.undeclared": (WARNING, "a third-party package that nothing declares"),
    "model.unknown": (ERROR, "a model that the registry does not have"),
    "folder.size": (WARNING, "the folder is large"),
    "folder.binary": (WARNING, "a large binary file among the sources"),
}
"""Rule to its severity and what it means. A finding that the check is not sure of is a warning."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is not as it should be."""

    file: str
    """Relative to the plugin's folder."""
    line: int
    """From 1 on; 0 where the whole file is meant."""
    rule: str
    severity: str
    """`error` keeps something from working, `warning` does not."""
    what: str
    fix: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


def finding(
    rule: str, what: str, fix: str, file: str = "plugin.toml", line: int = 0, *, sure: bool = True
) -> Finding:
    """Of the rule's own severity; a warning where it is not `sure`."""
    severity = RULES[rule][0] if sure else WARNING
    return Finding(file, line, rule, severity, what, fix)
