"""Precompiled components: found again by what they were made from, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from wasmtime import Config, wat2wasm
from wasmtime import Engine as WasmtimeEngine

from loom_host.runtimes.wasm import cache
from loom_host.runtimes.wasm.cache import CodeCache
from loom_host.runtimes.wasm.contract import compile_component

ONE, OTHER = (bytes(wat2wasm(text)) for text in ("(component)", "(component (component))"))
ENGINE = WasmtimeEngine()


def load(folder: Path, wasm: bytes, settings: str = "test") -> str:
    """`hit` or `compiled`, as a new host finds it."""
    codes = CodeCache(folder, settings)
    codes.component(ENGINE, wasm)
    assert codes.hits + codes.compiled == 1
    return "hit" if codes.hits else "compiled"


def entry(folder: Path, wasm: bytes) -> Path:
    return folder / f"{CodeCache(folder, 'test').name_of(wasm)}.cwasm"


def test_a_component_is_compiled_once_for_all_hosts(tmp_path: Path) -> None:
    assert [load(tmp_path, ONE) for _ in range(3)] == ["compiled", "hit", "hit"]
    assert load(tmp_path, OTHER) == "compiled"


def test_other_settings_have_their_own_entry(tmp_path: Path) -> None:
    assert load(tmp_path, ONE) == "compiled"
    assert load(tmp_path, ONE, "other") == "compiled"
    assert [load(tmp_path, ONE, text) for text in ("test", "other")] == ["hit", "hit"]


def test_another_wasmtime_compiles_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(tmp_path, ONE) == "compiled"
    monkeypatch.setattr(cache, "WASMTIME", "50.0.2")
    assert load(tmp_path, ONE) == "compiled"
    monkeypatch.undo()
    assert load(tmp_path, ONE) == "hit"


def test_the_entry_of_another_component_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """It is authentic, under the name that it was made for."""
    load(tmp_path, ONE)
    load(tmp_path, OTHER)
    for suffix in (".cwasm", ".mac"):
        stolen = entry(tmp_path, OTHER).with_suffix(suffix).read_bytes()
        entry(tmp_path, ONE).with_suffix(suffix).write_bytes(stolen)
    assert [load(tmp_path, ONE), load(tmp_path, ONE)] == ["compiled", "hit"]


def test_the_entry_of_another_hosts_key_is_compiled_again(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert [load(folder, ONE) for folder in (ours, theirs)] == ["compiled", "compiled"]
    for suffix in (".cwasm", ".mac"):
        made = entry(theirs, ONE).with_suffix(suffix).read_bytes()
        entry(ours, ONE).with_suffix(suffix).write_bytes(made)
    assert load(ours, ONE) == "compiled"


def test_authentic_code_that_this_engine_cannot_load_is_compiled_again(tmp_path: Path) -> None:
    config = Config()
    config.consume_fuel = True
    foreign = compile_component(WasmtimeEngine(config), ONE).serialize()
    codes = CodeCache(tmp_path, "test")
    codes._store(codes.name_of(ONE), foreign)
    assert [load(tmp_path, ONE), load(tmp_path, ONE)] == ["compiled", "hit"]


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    load(tmp_path, ONE)
    path = entry(tmp_path, ONE)
    code = path.read_bytes()
    for at in range(0, len(code), max(1, len(code) // 50)):
        path.write_bytes(code[:at] + bytes([code[at] ^ 1]) + code[at + 1 :])
        assert CodeCache(tmp_path, "test").verified(path.stem) is None, at
    path.write_bytes(code)
    assert load(tmp_path, ONE) == "hit"
