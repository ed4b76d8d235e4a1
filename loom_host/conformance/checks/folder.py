"""schema.valid: what can be told of the schemas and examples before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loom_host.conformance.kit import Fault, FolderCheck
from loom_host.conformance.plan import Plan
from loom_host.schema_check import compiled
from loom_sdk.plugin import CapabilitySpec


def schema_valid(plan: Plan) -> None:
    wrong = [text for spec in plan.manifest.capabilities for text in _wrong(plan, spec)]
    if wrong:
        raise Fault("; ".join(wrong[:5]))


def _wrong(plan: Plan, spec: CapabilitySpec) -> Iterator[str]:
    compiling = {"input": spec.input_schema, "output": spec.output_schema}
    validators = {}
    for name, schema in compiling.items():
        try:
            validators[name] = compiled(schema) if schema else None
        except ValueError as error:
            yield f"{spec.name}: {name} is no JSON Schema: {error}"
    for number, one in enumerate(spec.examples, start=1):
        if "arguments" not in one or "error" in one:  # it may be refused for what it breaks
            continue
        where = f"{spec.name}: example {number}: "
        if text := _misfit(validators.get("input"), one["arguments"]):
            yield f"{where}its arguments do not fit the input schema: {text}"
        if "output" in one and (text := _misfit(validators.get("output"), one["output"], True)):
            yield f"{where}its output does not fit the output schema: {text}"


def _misfit(validator: Any, value: Any, part: bool = False) -> str:
    """What is wrong with the value; of a `part` of an answer not that keys are missing."""
    if validator is None:
        return ""
    if not part and not isinstance(value, Mapping):
        return "they must be a table"
    errors = [e for e in validator.iter_errors(value) if not (part and _is_missing(e))]
    return "; ".join(f"{'/'.join(map(str, e.instance_path))}: {e.message}" for e in errors[:3])


def _is_missing(error: Any) -> bool:
    return "required" in list(map(str, error.schema_path))[-1:]


FOLDER = (FolderCheck("schema.valid", "schemas and examples fit each other", schema_valid),)
