"""loom_sdk.environment: what a library does to the host's environment is undone."""

from __future__ import annotations

import os
import threading

import pytest

from loom_sdk.environment import kept


def test_the_body_finds_what_it_wants_and_nothing_of_it_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOOM_TEST_OWN", "the operator's")
    monkeypatch.setenv("LOOM_TEST_GONE", "here")
    before = dict(os.environ)
    with kept(LOOM_TEST_WANTED="1", LOOM_TEST_OWN="another"):
        assert os.environ["LOOM_TEST_WANTED"] == "1"
        assert os.environ["LOOM_TEST_OWN"] == "the operator's"
        os.environ["LOOM_TEST_SET"] = "by a library"
        os.environ["LOOM_TEST_OWN"] = "changed"
        del os.environ["LOOM_TEST_GONE"]
    assert dict(os.environ) == before


def test_it_is_undone_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), kept(LOOM_TEST_WANTED="1"):
        raise ImportError("no such library")
    assert "LOOM_TEST_WANTED" not in os.environ


def test_two_plugins_that_start_at_once_leave_nothing_of_each_other() -> None:
    inside, go = threading.Event(), threading.Event()

    def first() -> None:
        with kept(LOOM_TEST_FIRST="1"):
            inside.set()
            go.wait(5)

    def second() -> None:
        with kept(LOOM_TEST_SECOND="1"):
            threads[0].join(5)  # were both inside, it would put back what the first had set

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(5)
    threads[1].start()
    threads[1].join(0.05)
    go.set()
    for thread in threads:
        thread.join(5)
    assert not {name for name in os.environ if name.startswith("LOOM_TEST_")}
