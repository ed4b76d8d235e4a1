"""Whether what `entry` names is there, is a plugin, and is built."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from loom_host import builds
from loom_host.hints import did_you_mean

from .finding import Finding, finding
from .python_code import PythonCode, is_plugin
from .subject import Module, Subject

_SCRIPTS = (".js", ".mjs", ".py")


def entry_findings(subject: Subject, code: PythonCode) -> Iterator[Finding]:
    entry = subject.manifest.entry
    if isinstance(entry, tuple):
        yield from _command(subject, entry)
    elif ":" in entry:
        yield from _python(subject, code, entry)
    else:
        yield from _file(subject, entry)
    yield from _built(subject)


def _at(subject: Subject, rule: str, what: str, fix: str) -> Finding:
    return finding(rule, what, fix, line=subject.at("plugin", "entry"))


def _command(subject: Subject, entry: tuple[str, ...]) -> Iterator[Finding]:
    folder = subject.folder
    for word in entry[1:]:
        if word.endswith(_SCRIPTS) and "/" not in word and not (folder / word).is_file():
            fix = f"write {word}, or mend entry"
            yield _at(subject, "entry.missing", f"there is no file {word}", fix)
    program = entry[0]
    if lack := builds.unbuilt(subject.manifest):
        yield _at(subject, "entry.not-built", *lack)
    elif "/" in program and not (folder / program).is_file():
        what = f"there is no program {program} here"
        yield _at(subject, "entry.not-built", what, "build it, or mend entry")
    elif "/" not in program and shutil.which(program) is None:
        what = f"{program} is not installed on this machine"
        yield _at(subject, "entry.not-built", what, f"install {program}, or mend entry")


def _python(subject: Subject, code: PythonCode, entry: str) -> Iterator[Finding]:
    module, _, name = entry.partition(":")
    path = subject.folder.joinpath(*module.split("."))
    if not path.with_suffix(".py").is_file() and not (path / "__init__.py").is_file():
        fix = did_you_mean(module, subject.modules, "write it, or mend entry")
        yield _at(subject, "entry.missing", f"there is no module {module} here", fix)
        return
    found = subject.modules.get(module)
    if found is None:  # it does not compile, which is told already
        return
    if name not in code.classes or not _has(found, name):
        fix = did_you_mean(name, code.classes, "write it, or mend entry")
        if not _imports(found, name):
            yield _at(subject, "entry.class", f"{module} has no class {name}", fix)
    elif not is_plugin(code, name):
        what = f"{name} is no plugin: it does not descend from loom_sdk.Plugin"
        yield _at(subject, "entry.class", what, f"write class {name}(Plugin)")


def _has(module: Module, name: str) -> bool:
    return name in _tops(module) or _imports(module, name)


def _tops(module: Module) -> set[str]:
    return {str(getattr(node, "name", "")) for node in module.tree.body}


def _imports(module: Module, name: str) -> bool:
    """Whether the name comes from elsewhere, or is made by an assignment."""
    for node in module.tree.body:
        for alias in getattr(node, "names", ()):
            if name == getattr(alias, "asname", None) or name == getattr(alias, "name", ""):
                return True
        if any(name == getattr(target, "id", "") for target in getattr(node, "targets", ())):
            return True
    return False


def _file(subject: Subject, entry: str) -> Iterator[Finding]:
    if (subject.folder / entry).is_file():
        yield from _component(subject, entry) if entry.endswith(".wasm") else ()
        return
    if entry in subject.modules and subject.manifest.tiers == ("native",):
        return  # a module of hooks
    what = f"there is no file {entry} here"
    if entry.endswith(".wasm"):
        fix = "build it there yourself: Loom does not know the sources of a .wasm"
        yield _at(subject, "entry.missing", what, fix)
    else:
        fix = "write it, or mend entry: 'module:Class', a file, or a command line as a list"
        yield _at(subject, "entry.missing", what, fix)


def _component(subject: Subject, entry: str) -> Iterator[Finding]:
    from loom_host.runtimes.wasm.inspection import refusal

    if what := refusal(subject.folder / entry):
        fix = "build it as a component of plugin.wit: docs/WITHOUT-SDK.md shows how"
        yield _at(subject, "entry.not-a-component", what, fix)


def _built(subject: Subject) -> Iterator[Finding]:
    manifest, entry = subject.manifest, subject.manifest.entry
    source = isinstance(entry, str) and not entry.endswith(".wasm")
    made = sorted((subject.folder / "build").glob("*.wasm")) if source else []
    if "wasm" not in manifest.tiers or not made or not isinstance(entry, str):
        return  # without a build the host makes one at the first start
    from loom_host.runtimes.wasm.build import built_path, is_current
    from loom_sdk.errors import PluginLoadError

    try:
        current = is_current(subject.folder, entry, built_path(subject.folder, entry))
    except (PluginLoadError, OSError):
        return
    if not current:
        what = f"{made[0].relative_to(subject.folder)} was made from other sources"
        yield _at(subject, "entry.not-built", what, f"loom plugin build {subject.folder}")
