"""Why a program does not start, from real files that the kernel or the loader refuses."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loom_host.runtimes.grpc.diagnosis import hint, why_not_run
from loom_sdk.errors import PluginLoadError

from .test_runtime_grpc import Bench, script

LOADERS = (b"/lib64/ld-linux-x86-64.so.2", b"/lib/ld-linux-aarch64.so.1")
TRUE = Path("/bin/true").read_bytes()
needs_glibc = pytest.mark.skipif(
    not any(loader in TRUE for loader in LOADERS),
    reason="/bin/true is no glibc program of this machine",
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.runtime.aclose()


def program(folder: Path, data: bytes) -> tuple[str, ...]:
    path = folder / "program"
    path.write_bytes(data)
    path.chmod(0o755)
    return ("program",)


def elf(machine: int) -> bytes:
    """The header of a 64-bit little-endian program for that machine."""
    return (
        b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + machine.to_bytes(2, "little") + bytes(100)
    )


async def test_a_program_for_another_machine_is_named(bench: Bench, tmp_path: Path) -> None:
    foreign = 183 if platform.machine() != "aarch64" else 62
    name = {183: "aarch64", 62: "x86_64"}[foreign]
    error = await bench.refused(program(tmp_path, elf(foreign)), folder=tmp_path)
    assert f"built for {name}, this machine is {platform.machine()}" in error.message
    error = await bench.refused(program(tmp_path, b"MZ" + bytes(300)), folder=tmp_path)
    assert "another operating system" in error.message


@needs_glibc
async def test_a_missing_shared_library_is_named(bench: Bench, tmp_path: Path) -> None:
    data = TRUE.replace(b"libc.so.6\0", b"libq.so.6\0")
    error = await bench.refused(program(tmp_path, data), folder=tmp_path)
    assert "exit code 127" in error.message
    assert "install the package that has the library libq.so.6" in error.message


@needs_glibc
async def test_a_missing_loader_is_named(bench: Bench, tmp_path: Path) -> None:
    data = TRUE
    for loader in LOADERS:
        data = data.replace(loader, loader.replace(b"/ld-", b"/no-"))
    error = await bench.refused(program(tmp_path, data), folder=tmp_path)
    assert "its loader /lib" in error.message
    assert "is missing" in error.message


async def test_a_missing_python_module_is_named(bench: Bench, tmp_path: Path) -> None:
    error = await bench.refused(script(tmp_path, "import not_installed"), folder=tmp_path)
    assert "install what has the Python module 'not_installed'" in error.message


async def test_a_child_that_serves_something_else_is_told_what_to_serve(
    bench: Bench, tmp_path: Path
) -> None:
    source = """
        import os, time
        from concurrent import futures
        import grpc
        server = grpc.server(futures.ThreadPoolExecutor(1))
        server.add_insecure_port("unix:" + os.environ["LOOM_SOCKET"])
        server.start()
        time.sleep(30)
        """
    error = await bench.refused(script(tmp_path, source), folder=tmp_path)
    assert "serves no Init: it must serve loom.v1.Plugin" in error.message
    assert isinstance(error, PluginLoadError)


def test_hints_from_last_lines() -> None:
    newer = "./x: /lib/libc.so.6: version `GLIBC_2.99' not found (required by ./x)"
    assert "built for a newer system (GLIBC_2.99)" in hint([newer])
    assert hint(["all is well"]) == ""
    assert hint([]) == ""


def test_every_refusal_of_the_kernel_gets_a_reason(tmp_path: Path) -> None:
    error = OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
    for number, data in enumerate(
        (b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(60), b"#!", b"#! \n")
    ):
        path = tmp_path / str(number)
        path.write_bytes(data)
        assert why_not_run(str(path), error)
    assert why_not_run(str(tmp_path / "absent"), error)
    assert why_not_run(sys.executable, error)


def test_standard_services_are_imported_late() -> None:
    code = (
        "import sys, loom_sdk.serve; "
        "late = ('grpc_health.v1.health_pb2', 'grpc_reflection.v1alpha.reflection'); "
        "print([m for m in late if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
