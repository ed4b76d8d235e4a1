"""Why a program does not run: what its file and its last words tell."""

from __future__ import annotations

import os
import platform
import re
import struct
from collections.abc import Iterable
from pathlib import Path

MACHINES = {
    3: "i386", 8: "mips", 20: "ppc", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "x86_64",
    183: "aarch64", 243: "riscv64", 258: "loongarch64",
}  # fmt: skip
"""`e_machine` of an ELF file, from linux/elf-em.h."""
PT_INTERP = 3

_LIBRARY = re.compile(r"error while loading shared libraries: ([^\s:]+)")
_MODULE = re.compile(r"(?:ModuleNotFoundError: )?No module named '([^']+)'")
_SYMBOL_VERSION = re.compile(r"version [`']([A-Z]+_[\d.]+)' not found")


def hint(lines: Iterable[str]) -> str:
    """What to do about a start that failed, from the last lines of output; empty if unknown."""
    text = "\n".join(lines)
    if found := _LIBRARY.search(text):
        return f"; install the package that has the library {found[1]}"
    if found := _SYMBOL_VERSION.search(text):
        return f"; it was built for a newer system ({found[1]}): build it on this one"
    if found := _MODULE.search(text):
        return f"; install what has the Python module {found[1]!r} for its interpreter"
    return ""


def why_not_run(program: str, error: OSError) -> str:
    """What the kernel's refusal to run `program` means."""
    header = _head(program)
    if header.startswith(b"\x7fELF"):
        return _why_not_elf(program, header, error)
    if header.startswith(b"#!"):
        interpreter = header[2:].split(b"\n")[0].split()[:1]
        name = os.fsdecode(interpreter[0]) if interpreter else "none"
        return (
            f"its first line names the interpreter {name}: {error.strerror}; install or correct it"
        )
    if header.startswith(b"MZ") or header[:4] in (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"):
        return "it was built for another operating system: install the build for Linux"
    return (
        f"{error.strerror}; it is no program for this machine, nor a script that begins with `#!`"
    )


def _why_not_elf(program: str, header: bytes, error: OSError) -> str:
    order = "<" if header[5:6] == b"\x01" else ">"
    number = struct.unpack_from(order + "H", header, 18)[0] if len(header) >= 20 else 0
    built, here = MACHINES.get(number, f"machine {number}"), platform.machine()
    if built != here and not (built == "i386" and here == "x86_64"):
        return f"it was built for {built}, this machine is {here}: install the build for {here}"
    loader = _loader(header, order)
    if loader and not Path(loader).exists():
        return f"its loader {loader} is missing: install it, or a build for this distribution"
    return f"{error.strerror}: the file may be damaged, install it again"


def _loader(header: bytes, order: str) -> str:
    """PT_INTERP of a 64-bit ELF file, where it lies in the header; else empty."""
    if header[4:5] != b"\x02" or len(header) < 64:
        return ""
    offset, size, count = (
        struct.unpack_from(order + "Q", header, 32)[0],
        *struct.unpack_from(order + "HH", header, 54),
    )
    for start in range(offset, min(offset + size * count, len(header) - 56 + 1), size or 1):
        kind, _, where, _, _, length = struct.unpack_from(order + "IIQQQQ", header, start)
        if kind == PT_INTERP:
            return os.fsdecode(header[where : where + length].rstrip(b"\0"))
    return ""


def _head(program: str) -> bytes:
    try:
        with Path(program).open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""
