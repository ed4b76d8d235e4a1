"""Rules about the JSON Schemas in `plugin.toml` and the examples that they are to fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loom_host.schema_check import compiled

from .finding import Finding, finding
from .subject import Subject


def schema_findings(subject: Subject) -> Iterator[Finding]:
    yield from _config(subject)
    for index, table in enumerate(subject.data.get("capability", ())):
        for side, part in (("input", "arguments"), ("output", "output")):
            schema = table.get(side)
            if schema is None:
                continue
            line = subject.at("capability", side, index=index)
            try:
                validator = compiled(schema)
            except ValueError as error:
                yield _invalid(f"{side} of {table['name']}", error, line)
                continue
            yield from _examples(subject, index, validator, part)


def _invalid(what: str, error: ValueError, line: int) -> Finding:
    reason = str(error).splitlines()[0]
    fix = "write JSON Schema (draft 2020-12)"
    return finding("schema.invalid", f"{what} is no JSON Schema: {reason}", fix, line=line)


def _config(subject: Subject) -> Iterator[Finding]:
    for key, schema in subject.manifest.config_schema.items():
        line = subject.at("config", key)
        try:
            validator = compiled(schema)
        except ValueError as error:
            yield _invalid(f"[config] {key}", error, line)
            continue
        if "default" in schema and not validator.is_valid(schema["default"]):
            wrong = next(iter(validator.iter_errors(schema["default"])))
            what = f"the default of {key} breaks its own schema: {wrong.message}"
            fix = "mend the default or the schema"
            yield finding("schema.default", what, fix, line=line)


def _examples(subject: Subject, index: int, validator: Any, part: str) -> Iterator[Finding]:
    table: Mapping[str, Any] = subject.data["capability"][index]
    for number, example in enumerate(table.get("examples", ()), 1):
        if part not in example or "error" in example:  # it may be refused for what it breaks
            continue
        for error in validator.iter_errors(example[part]):
            if part == "output" and _only_less(error):
                continue
            place = "/".join([part, *map(str, error.instance_path)])
            what = f"example {number} of {table['name']}: {place}: {error.message}"
            fix = f"mend the example, or the {'input' if part == 'arguments' else part} schema"
            line = _line(subject, index, example)
            yield finding("schema.example", what, fix, line=line)
            break


def _only_less(error: Any) -> bool:
    """An example's output says what the answer must contain, not all of it."""
    return "is a required property" in str(error.message)


def _line(subject: Subject, index: int, example: Mapping[str, Any]) -> int:
    question = example.get("question")
    if isinstance(question, str):
        return subject.at("capability", "examples", question, index)
    return subject.at("capability", "examples", index=index)
