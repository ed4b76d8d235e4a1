"""What the code offers and hears against what `plugin.toml` lists."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import Finding, finding
from .other_code import offers_in
from .python_code import PythonCode
from .subject import Subject


def python_findings(subject: Subject, code: PythonCode) -> Iterator[Finding]:
    """Nothing of what only the running code knows: computed names, foreign base classes."""
    manifest = subject.manifest
    listed = {spec.name: spec for spec in manifest.capabilities}
    for name, offer in code.offers.items():
        if name not in listed:
            what = f"the code offers {name}, which plugin.toml does not list"
            fix = f'add [[capability]] name = "{name}", or take the mark off'
            yield finding("code.capability", what, fix, offer.file, offer.line)
        elif offer.effects and offer.effects != listed[name].effects:
            what = f"{name}: the code says effects {offer.effects}, plugin.toml "
            what += f"{listed[name].effects}, which holds"
            fix = "let both say the same"
            yield finding("code.effects", what, fix, offer.file, offer.line)
    topics = [spec.topic for spec in manifest.subscribes]
    for topic, (file, line) in code.hears.items():
        if topic not in topics:
            what = f"the code hears {topic}, which plugin.toml does not list"
            fix = f'add [[events.subscribes]] topic = "{topic}", or take the mark off'
            yield finding("code.subscription", what, fix, file, line)
    if not code.unsure and not code.dynamic:
        yield from _without_code(subject, code)


def _without_code(subject: Subject, code: PythonCode) -> Iterator[Finding]:
    for index, spec in enumerate(subject.manifest.capabilities):
        if spec.name not in code.offers:
            what = f"plugin.toml lists {spec.name}, which no method offers"
            fix = f'mark one with @capability("{spec.name}"), or remove the table'
            yield finding(
                "code.capability", what, fix, line=subject.at("capability", "name", "", index)
            )
    for index, heard in enumerate(subject.manifest.subscribes):
        if heard.topic not in code.hears:
            what = f"plugin.toml subscribes to {heard.topic}, which no method hears"
            fix = f'mark one with @on_event("{heard.topic}"), or remove the table'
            line = subject.at("events.subscribes", "topic", "", index)
            yield finding("code.subscription", what, fix, line=line)


def node_findings(subject: Subject) -> Iterator[Finding]:
    """Of a plugin on Node.js, which names its capabilities in calls."""
    offered = {
        name: (file, line)
        for file, text in subject.texts.items()
        for name, line in offers_in(file, text)
    }
    listed = [spec.name for spec in subject.manifest.capabilities]
    for name, (file, line) in offered.items() if listed else ():
        if name not in listed:
            what = f"the code offers {name}, which plugin.toml does not list"
            fix = f'add [[capability]] name = "{name}", or remove the call'
            yield finding("code.capability", what, fix, file, line, sure=False)
    for index, name in enumerate(listed if offered else ()):
        if name not in offered:
            what = f"plugin.toml lists {name}, which no call of plugin.capability names"
            fix = "offer it, or remove the table"
            line = subject.at("capability", "name", "", index)
            yield finding("code.capability", what, fix, line=line, sure=False)
