"""The API reference in docs/api, from the source: `python -m tools.api`.

With `--check` nothing is written; the exit code is 1 when a committed page differs.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "api"
SOURCES = (ROOT / "sdk" / "python", ROOT)
MODULES = (
    "loom_sdk",
    "loom_sdk.context",
    "loom_sdk.errors",
    "loom_sdk.testing",
    "loom_sdk.engines",
    "loom_sdk.toolloop",
    "loom_sdk.context_builder",
    "loom_sdk.toolchoice",
    "loom_sdk.models",
    "loom_sdk.environment",
    "loom_host",
    "loom_host.bus",
    "loom_host.testing",
)
"""What authors and operators import; everything else may change without a word."""
HEAD = "<!-- Written by `make api` from the docstrings: change those. -->\n\n"


@dataclass(frozen=True, slots=True)
class Page:
    """One module."""

    module: griffe.Module
    names: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"{self.module.path}.md"


def generate() -> dict[str, str]:
    """File name to text of every page."""
    logging.getLogger("griffe").setLevel(logging.ERROR)  # of docstrings that are prose
    loader = griffe.GriffeLoader(search_paths=SOURCES, docstring_parser=griffe.Parser.google)
    for package in dict.fromkeys(name.partition(".")[0] for name in MODULES):
        loader.load(package)
    loader.resolve_aliases(external=False)
    pages = [_page(loader, name) for name in MODULES]
    first = pages[0].names
    pages = [pages[0], *(replace(p, names=_without(p.names, first)) for p in pages[1:])]
    texts = {page.file: HEAD + "\n".join(_lines_of_page(page)) for page in pages}
    index = "".join(f"- [{p.module.path}]({p.file}): {_summary(p.module)}\n" for p in pages)
    return texts | {"README.md": f"{HEAD}# API\n\n{index}"}


def _without(names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)


def _page(loader: griffe.GriffeLoader, path: str) -> Page:
    module = loader.modules_collection[path]
    assert isinstance(module, griffe.Module)
    exported = [str(name) for name in module.exports or ()]
    own = [n for n, m in module.members.items() if _is_public(n) and not m.is_alias and _is_api(m)]
    return Page(module, tuple(exported or own))


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _is_api(member: griffe.Object | griffe.Alias) -> bool:
    return member.is_class or member.is_function or (member.is_attribute and member.has_docstring)


def _lines_of_page(page: Page) -> Iterator[str]:
    yield f"# {page.module.path}\n"
    yield from _docstring(page.module)
    for name in page.names:
        member = page.module.members[name]
        target = member.final_target if isinstance(member, griffe.Alias) else member
        yield f"## {name}\n"
        yield from _entry(target)
        if isinstance(target, griffe.Class):
            yield from _members(target, page.names)


def _members(kind: griffe.Class, shown: Sequence[str]) -> Iterator[str]:
    for name, member in (kind.members | _inherited(kind, shown)).items():
        target = member.final_target if isinstance(member, griffe.Alias) else member
        told = target.is_function or target.has_docstring or "property" in target.labels
        if _is_public(name) and told:
            yield f"### {kind.name}.{name}\n"
            yield from _entry(target)


def _inherited(kind: griffe.Class, shown: Sequence[str]) -> dict[str, griffe.Alias]:
    """What comes of classes that have no place of their own on the page."""
    return {
        name: member
        for name, member in kind.inherited_members.items()
        if member.final_target.parent is not None
        and member.final_target.parent.name not in shown
        and member.final_target.package.name in ("loom_sdk", "loom_host")
    }


def _entry(member: griffe.Object) -> Iterator[str]:
    yield f"`{_signature(member)}`\n"
    yield from _docstring(member)


def _signature(member: griffe.Object) -> str:
    if isinstance(member, griffe.Function):
        word = "async def" if "async" in member.labels else "def"
        returns = f" -> {member.returns}" if member.returns else ""
        return f"{word} {member.name}({_parameters(member.parameters)}){returns}"
    if isinstance(member, griffe.Class):
        bases = ", ".join(str(base) for base in member.bases)
        inits = member.parameters if not member.is_alias else griffe.Parameters()
        given = _parameters(inits)
        text = f"class {member.name}({bases})" if bases else f"class {member.name}"
        return f"{text}: {member.name}({given})" if given else text
    if isinstance(member, griffe.Attribute):
        kind = f": {member.annotation}" if member.annotation else ""
        return f"{member.name}{kind}"
    return member.name


def _parameters(parameters: griffe.Parameters) -> str:
    texts: list[str] = []
    kinds = griffe.ParameterKind
    given = [p for p in parameters if p.name not in ("self", "cls")]
    for index, parameter in enumerate(given):
        before = given[index - 1].kind if index else None
        if before is kinds.positional_only and parameter.kind is not kinds.positional_only:
            texts.append("/")
        starred = before in (kinds.keyword_only, kinds.var_positional)
        if parameter.kind is kinds.keyword_only and not starred:
            texts.append("*")
        stars = {kinds.var_positional: "*", kinds.var_keyword: "**"}.get(parameter.kind, "")
        kind = f": {parameter.annotation}" if parameter.annotation else ""
        default = "" if stars or parameter.default is None else f" = {parameter.default}"
        texts.append(f"{stars}{parameter.name}{kind}{default}")
    return ", ".join(texts)


def _summary(member: griffe.Object) -> str:
    text = member.docstring.value if member.docstring else ""
    return " ".join(text.partition("\n\n")[0].split())


def _docstring(member: griffe.Object) -> Iterator[str]:
    """Sections as Markdown."""
    for section in member.docstring.parsed if member.docstring else ():
        if isinstance(section, griffe.DocstringSectionText):
            yield f"{section.value}\n"
        elif isinstance(section, griffe.DocstringSectionParameters | griffe.DocstringSectionRaises):
            yield "\n".join(_row(item) for item in section.value) + "\n"
        elif isinstance(section, griffe.DocstringSectionReturns):
            yield "\n".join(f"- returns {item.description}" for item in section.value) + "\n"
        elif isinstance(section, griffe.DocstringSectionAdmonition):
            yield f"{section.title}: {section.value.description}\n"


def _row(item: griffe.DocstringParameter | griffe.DocstringRaise) -> str:
    said = " ".join(item.description.split())
    if isinstance(item, griffe.DocstringRaise):
        return f"- raises `{item.annotation}`: {said}"
    return f"- `{item.name}`: {said}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.api", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, tell what differs")
    check = parser.parse_args(arguments).check
    texts = generate()
    there = {path.name: path.read_text() for path in TARGET.glob("*.md")}
    stale = sorted(name for name in texts | there if texts.get(name) != there.get(name))
    if not check:
        TARGET.mkdir(exist_ok=True)
        for name in stale:
            (TARGET / name).unlink(missing_ok=True)
            if name in texts:
                (TARGET / name).write_text(texts[name])
    for name in stale:
        print(f"{'differs' if check else 'written'}: {TARGET / name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
