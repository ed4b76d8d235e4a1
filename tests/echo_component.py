"""Components made from types: an `echo` of any WIT type, in a few lines of WAT.

More than 16 flat parameters travel through memory, and so does a result of more than one: the
record of parameters then begins with the very bytes that the result needs, and the guest's code is
to return the pointer that it got.
"""

from __future__ import annotations

from wasmtime import wat2wasm

from loom_host.runtimes.wasm.component_types import (
    Enum,
    Flags,
    ListOf,
    Option,
    Primitive,
    Record,
    Result,
    Tuple,
    Variant,
    WitType,
)

MEMORY = """
  (core module $M
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 16))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32) (local $end i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
      (local.set $end (i32.add (local.get $at) (local.get 3)))
      (global.set $next (local.get $end))
      (block $fits
        (br_if $fits (i32.le_u (local.get $end) (i32.shl (memory.size) (i32.const 16))))
        (drop (memory.grow (i32.add (i32.shr_u (local.get 3) (i32.const 16)) (i32.const 1)))))
      (local.get $at))
    (func (export "echo") (param i32) (result i32) (local.get 0))
    (func (export "reset") (param i32) (global.set $next (i32.const 16))))
  (core instance $m (instantiate $M))"""
LIFT = """(canon lift (core func $m "echo") (memory (core memory $m "memory"))
    (realloc (core func $m "realloc")) (post-return (core func $m "reset")))"""
FILL = ["u64"] * 16


def echo_component(kind: WitType) -> bytes:
    """A component with `echo: func(x: T, n: u64, ...) -> tuple<T, u64>`."""
    types: list[str] = []
    text = wat_type(kind, types)
    filled = "".join(f' (param "p{i}" {of})' for i, of in enumerate(FILL))
    return bytes(
        wat2wasm(
            f"(component {MEMORY}\n{chr(10).join(types)}\n"
            f'(func (export "echo") (param "x" {text}){filled} (result (tuple {text} u64))\n'
            f"{LIFT}))"
        )
    )


def wat_type(kind: WitType | None, types: list[str]) -> str:
    """The type as WAT refers to it; what must have a name is appended to `types`."""
    match kind:
        case Primitive(name):
            return name
        case ListOf(element):
            return f"(list {wat_type(element, types)})"
        case Tuple(elements):
            return f"(tuple {' '.join(wat_type(of, types) for of in elements)})"
        case Option(some):
            return f"(option {wat_type(some, types)})"
        case Result(ok, err):
            good = f" {wat_type(ok, types)}" if ok else ""
            bad = f" (error {wat_type(err, types)})" if err else ""
            return f"(result{good}{bad})"
        case Record(fields):
            inside = " ".join(f'(field "{name}" {wat_type(of, types)})' for name, of in fields)
            return _named(f"record {inside}", types)
        case Variant(cases):
            inside = " ".join(
                f'(case "{name}"{" " + wat_type(of, types) if of else ""})' for name, of in cases
            )
            return _named(f"variant {inside}", types)
        case Enum(names):
            return _named(f"enum {_quoted(names)}", types)
        case Flags(names):
            return _named(f"flags {_quoted(names)}", types)
        case None:
            raise TypeError("no type")


def _named(definition: str, types: list[str]) -> str:
    number = len(types)
    types.append(
        f'(type $d{number} ({definition})) (export $t{number} "t{number}" (type $d{number}))'
    )
    return f"$t{number}"


def _quoted(names: tuple[str, ...]) -> str:
    return " ".join(f'"{name}"' for name in names)
