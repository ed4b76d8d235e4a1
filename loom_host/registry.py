"""Who offers what: capabilities, their providers, and the order of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loom_sdk.errors import CapabilityNotFound, InvalidArguments, NoProvider
from loom_sdk.plugin import CapabilitySpec

from .handle import PluginHandle
from .hints import did_you_mean
from .manifest_values import HOST, HOSTS_OWN
from .observations import HALF_LIFE_S, Observed
from .schema_check import compiled
from .settings import Policy


@dataclass(slots=True)
class Offer:
    """One provider of one capability."""

    handle: PluginHandle
    spec: CapabilitySpec
    route: tuple[str, str]
    """The router's decision and reason where there is no other."""
    seen: Observed
    """What its calls took, and how many failed."""
    _validator: Any = None

    def always(self, policy: Policy) -> bool:
        """Whether no rule of the router could keep it, as the only provider, from a call."""
        free = self.route[0] == "Local" or self.handle.settings.cost <= policy.cost_cap
        return free and policy.privacy in ("public", "sensitive")

    @property
    def validator(self) -> Any:
        """The input schema, compiled at first use; None where there is none."""
        if self._validator is None and self.spec.input_schema:
            self._validator = compile_schema(self.spec)
        return self._validator


class Registry:
    """Capabilities by name and provider, and the routing table made of them.

    Args:
        providers: the operator's order, by capability.
        half_life_s: of what is measured.
    """

    def __init__(
        self, providers: Mapping[str, Sequence[str]], half_life_s: float = HALF_LIFE_S
    ) -> None:
        self._providers = dict(providers)
        self._half_life_s = half_life_s
        self._absent: dict[str, dict[str, PluginHandle]] = {}
        """By capability: who would provide it but is switched off or replaced."""
        self._offers: dict[str, dict[str, Offer]] = {}
        self._routes: dict[str, list[Offer]] = {}

    def register(self, handle: PluginHandle) -> None:
        """Take up what a plugin provides, by its manifest, completed by what it said at Init.

        A component whose manifest lists nothing provides what its types tell, once it is loaded.
        """
        said = {}
        if handle.instance is not None:
            said = {spec.name: spec for spec in handle.instance.declaration.capabilities}
        by_types = tuple(said.values()) if handle.manifest.offers_by_types else ()
        for listed in handle.manifest.capabilities or by_types:
            if not handle.grants.permits("provide", listed.name):
                continue
            if listed.name.startswith(HOSTS_OWN) and handle.name != HOST:
                continue  # whatever it was called: nobody answers in the host's name
            spec = complete(listed, said.get(listed.name))
            offers = self._offers.setdefault(spec.name, {})
            old = offers.get(handle.name)
            self._absent.get(spec.name, {}).pop(handle.name, None)
            if old is None or old.handle is not handle or old.spec != spec:
                seen = Observed(self._half_life_s)
                offers[handle.name] = Offer(handle, spec, _ONLY[handle.placement], seen)
                self._routes.clear()
            else:
                old.route = _ONLY[handle.placement]

    def withdraw(self, handle: PluginHandle) -> None:
        """It provides nothing any more; its state and reason are told to who asks for it."""
        listed = {spec.name for spec in handle.manifest.capabilities}
        for name in listed | self.offered(handle):
            self._absent.setdefault(name, {})[handle.name] = handle
            offers = self._offers.get(name, {})
            offers.pop(handle.name, None)
            if not offers:
                self._offers.pop(name, None)
        self._routes.clear()

    def offered(self, handle: PluginHandle) -> set[str]:
        """Names of what it provides now."""
        return {name for name, offers in self._offers.items() if handle.name in offers}

    def replace(self, old: PluginHandle, new: PluginHandle) -> None:
        """Put `new` in the place of `old` in the order of providers, and withdraw `old`."""
        if new.name != old.name:
            for name in self.offered(old):
                listed = self._providers.get(name) or [o.handle.name for o in self._ordered(name)]
                rest = [other for other in listed if other != new.name]
                names = [new.name if other == old.name else other for other in rest]
                self._providers[name] = tuple(names)
        self.withdraw(old)

    def capabilities(self) -> dict[str, list[Offer]]:
        """Every capability with its providers in the operator's order."""
        return {name: self._ordered(name) for name in sorted(self._offers)}

    def _ordered(self, name: str) -> list[Offer]:
        offers = self._offers[name]
        listed = self._providers.get(name)
        if listed is None:
            return sorted(offers.values(), key=_version, reverse=True)
        return [offers[plugin] for plugin in listed if plugin in offers]

    def find(self, capability: str) -> list[Offer]:
        """The providers of `name` or `name@version`; looked up once until something registers.

        Raises:
            CapabilityNotFound: names what is offered.
        """
        found = self._routes.get(capability)
        if found is None:
            found = self._routes[capability] = self._look_up(capability)
        return found

    def _look_up(self, capability: str) -> list[Offer]:
        name, _, version = capability.partition("@")
        if name not in self._offers:
            self._tell_absent(name)
            known = ", ".join(sorted(self._offers)) or "none"
            hint = f"{did_you_mean(name, self._offers, '')} ".lstrip()
            raise CapabilityNotFound(f"nobody offers {name!r}; {hint}offered: {known}")
        offers = self._ordered(name)
        if version:
            offers = [o for o in offers if (o.spec.version or o.handle.spec.version) == version]
        if not offers:
            self._tell_absent(name)
            raise CapabilityNotFound(
                f"no allowed provider offers {capability!r}: see [providers] in loom.toml"
            )
        return offers

    def _tell_absent(self, name: str) -> None:
        """Raises NoProvider where there would be one if it were not switched off."""
        wanted = self._providers.get(name)
        absent = [h for n, h in self._absent.get(name, {}).items() if not wanted or n in wanted]
        if absent:
            why = "; ".join(f"{handle.name} is {handle.reason}" for handle in absent)
            raise NoProvider(f"{name}: {why}; `loom enable {absent[0].name}` starts it")


def complete(listed: CapabilitySpec, said: CapabilitySpec | None) -> CapabilitySpec:
    """The manifest's entry, with schema and description from the code where it has none."""
    if said is None:
        return listed
    return CapabilitySpec(
        name=listed.name,
        description=listed.description or said.description,
        tool=listed.tool,
        effects=listed.effects,
        input_schema=listed.input_schema or said.input_schema,
        output_schema=listed.output_schema or said.output_schema,
        resumable=listed.resumable,
        version=listed.version or said.version,
        examples=listed.examples,
    )


def validate(offer: Offer, arguments: Any) -> None:
    """Raises InvalidArguments naming each place that does not fit."""
    if not isinstance(arguments, dict):
        raise InvalidArguments(f"{offer.spec.name}: arguments must be a JSON object")
    validator = offer.validator
    if validator is None or validator.is_valid(arguments):
        return
    errors = list(validator.iter_errors(arguments))[:3]
    texts = ["/".join(map(str, e.instance_path)) + ": " + e.message for e in errors]
    raise InvalidArguments(
        f"{offer.spec.name}: " + "; ".join(text.removeprefix(": ") for text in texts)
    )


def compile_schema(spec: CapabilitySpec) -> Any:
    """A validator for the input schema. Raises InvalidArguments where the schema is wrong."""
    if not spec.input_schema:
        return None
    try:
        return compiled(spec.input_schema)
    except ValueError as error:
        raise InvalidArguments(f"{spec.name}: the input schema is wrong: {error}") from error


_ONLY = {"local": ("Local", "Only provider"), "cloud": ("Cloud", "Only provider")}
"""The route by placement where one provider leaves nothing to decide."""


def _version(offer: Offer) -> tuple[int, ...]:
    text = offer.spec.version or offer.handle.spec.version
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))
