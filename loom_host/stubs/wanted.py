"""Which capabilities a client is to have, and who describes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from loom_host.builtin import CAPABILITIES
from loom_host.hints import did_you_mean
from loom_host.manifest import Manifest
from loom_sdk.errors import CapabilityNotFound
from loom_sdk.plugin import CapabilitySpec


@dataclass(frozen=True, slots=True)
class Offered:
    """One capability as one plugin describes it."""

    spec: CapabilitySpec
    by: str
    """Id of the plugin; `the host` for its own."""


def known_offers(manifests: Iterable[Manifest]) -> dict[str, Offered]:
    """Capability to who describes it best: with output, with input, then by the plugin's id."""
    found = {spec.name: Offered(spec, "the host") for spec in CAPABILITIES}
    every = [Offered(spec, m.id) for m in manifests for spec in m.capabilities]
    for offered in sorted(every, key=_rank):
        found.setdefault(offered.spec.name, offered)
    return dict(sorted(found.items()))


def _rank(offered: Offered) -> tuple[bool, bool, str, str]:
    spec = offered.spec
    return (spec.output_schema is None, spec.input_schema is None, offered.by, spec.name)


def wanted_by(manifest: Manifest, offers: Mapping[str, Offered]) -> tuple[list[Offered], list[str]]:
    """What a plugin's `invoke` permissions cover, by name, and those that cover nothing."""
    own = {spec.name for spec in manifest.capabilities}
    asked = manifest.permissions.invoke
    found = [
        offered
        for name, offered in offers.items()
        if any(pattern == name or fnmatchcase(name, pattern) for pattern in asked)
        and (name not in own or name in asked)
    ]
    names = [offered.spec.name for offered in found]
    empty = [pattern for pattern in asked if not any(fnmatchcase(n, pattern) for n in names)]
    return found, empty


def wanted_named(words: Iterable[str], offers: Mapping[str, Offered]) -> list[Offered]:
    """Those of the given names or patterns.

    Raises:
        CapabilityNotFound: a word covers none; with a suggestion.
    """
    found: dict[str, Offered] = {}
    for word in words:
        fitting = {name: offers[name] for name in offers if fnmatchcase(name, word)}
        if not fitting:
            hint = did_you_mean(word, offers, "`loom plugin list` has the names")
            raise CapabilityNotFound(f"no manifest that this host finds offers {word!r}: {hint}")
        found |= fitting
    return [found[name] for name in sorted(found)]
