"""A process that locks itself down as a wasm worker with folders does, then tries all it can.

roomed.py READ WRITTEN OUTSIDE LIMIT    two folders and a file; prints attempt -> what it said
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from loom_host.confine import landlock
from loom_host.runtimes.wasm import lockdown


def attempt(work: Callable[[], object]) -> str:
    try:
        work()
    except OSError as error:
        return type(error).__name__
    return "ok"


def write(path: str, folder: int, size: int = 1) -> None:
    handle = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=folder)
    try:
        while size > 0:
            size -= os.write(handle, bytes(size))
    finally:
        os.close(handle)


def attempts(read: int, written: int, outside: Path, limit: int) -> dict[str, str]:
    """`read` and `written` are open folders: the engine, too, goes from there."""
    tried: dict[str, Callable[[], object]] = {
        "read": lambda: os.open("book", os.O_RDONLY, dir_fd=read),
        "list": lambda: os.listdir(f"/proc/self/fd/{read}"),
        "write": lambda: write("new", written),
        "rename": lambda: os.rename("new", "newer", src_dir_fd=written, dst_dir_fd=written),
        "mkdir": lambda: os.mkdir("sub", dir_fd=written),
        "remove": lambda: os.unlink("newer", dir_fd=written),
        "write into the read one": lambda: write("new", read),
        "write over what is read": lambda: write("book", read),
        "remove what is read": lambda: os.unlink("book", dir_fd=read),
        "mkdir in the read one": lambda: os.mkdir("sub", dir_fd=read),
        "take what is read": lambda: os.rename("book", "book", src_dir_fd=read, dst_dir_fd=written),
        "read outside": lambda: os.open(outside, os.O_RDONLY),
        "write outside": lambda: write(str(outside), written),
        "remove outside": lambda: os.unlink(f"../{outside.name}", dir_fd=written),
        "mkdir outside": lambda: os.mkdir("../sub", dir_fd=written),
        "take outside": lambda: os.rename(
            f"../{outside.name}", "o", src_dir_fd=written, dst_dir_fd=written
        ),
        "through ..": lambda: os.open(f"../{outside.name}", os.O_RDONLY, dir_fd=written),
        "through a link": lambda: os.open("out", os.O_RDONLY, dir_fd=read),
        "list /": lambda: os.listdir("/"),
        "passwd": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "symlink": lambda: os.symlink("/etc/passwd", "link", dir_fd=written),
        "link": lambda: os.link("book", "link", src_dir_fd=read, dst_dir_fd=written),
        "chmod": lambda: os.chmod("sub", 0o777, dir_fd=written),
        "too large": lambda: write("large", written, limit + 1),
    }
    return {name: attempt(work) for name, work in tried.items()}


def main(read: Path, written: Path, outside: Path, limit: int) -> None:
    held = os.open(read, os.O_PATH), os.open(written, os.O_PATH)
    folders = {held[0]: landlock.READ, held[1]: landlock.READ | landlock.CHANGE}
    about = written.stat()
    files = lockdown.Files(folders, (about.st_uid, about.st_gid), limit)
    result = os.dup(1)
    layers = lockdown.lock_down(64 * 1024**2, os.getppid(), [result, *folders], files, None)
    said = attempts(*held, outside, limit)
    answer = {"layers": layers, "user": os.geteuid(), "said": said}
    answer["essential"] = lockdown.essential(layers, files)
    os.write(result, json.dumps(answer).encode())
    os._exit(0)


if __name__ == "__main__":
    _, read_one, written_one, other, most = sys.argv
    main(Path(read_one), Path(written_one), Path(other), int(most))
