"""Google, NumPy and reST docstrings tell the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from loom_sdk.docstrings import parameters, summary, text_of

GOOGLE = '''Find the weather
    of a place.

    Longer words.

    Args:
        city: Its name,
            in its own language.
        days (int, optional): How many: at most 7.
        *rest: What else.

        units: Which ones.

    Returns:
        dict: A table.
    """'''
NUMPY = """Find the weather
    of a place.

    Longer words.

    Parameters
    ----------
    city : str
        Its name,
        in its own language.
    days : int, optional
        How many: at most 7.
    *rest
        What else.
    units : {"c", "f"}
        Which ones.

    Returns
    -------
    table : dict
        A table.
    """
REST = """Find the weather
    of a place.

    Longer words.

    :param city: Its name,
        in its own language.
    :param int days: How many: at most 7.
    :param \\*rest: What else.
    :param units: Which ones.
    :type units: str
    :returns: A table.
    :raises ValueError: Never.
    """
TOLD = {
    "city": "Its name, in its own language.",
    "days": "How many: at most 7.",
    "rest": "What else.",
    "units": "Which ones.",
}


def with_doc(text: str) -> Any:
    def method() -> None: ...

    method.__doc__ = text
    return method


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, REST], ids=["google", "numpy", "rest"])
def test_every_style_tells_summary_and_parameters(text: str) -> None:
    doc = text_of(with_doc(text))
    assert summary(doc) == "Find the weather of a place."
    assert parameters(doc) == TOLD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        ("One line.", "One line."),
        ("\n    Begins below.\n\n    More.\n", "Begins below."),
        ("Google at once.\n    Args:\n        x: It.", "Google at once."),
        ("reST at once.\n    :param x: It.", "reST at once."),
        ("NumPy at once.\n    Parameters\n    ----------\n    x : int\n        It.",
         "NumPy at once."),
        ("Ends with a colon:\n    and goes on.", "Ends with a colon: and goes on."),
    ],
)  # fmt: skip
def test_the_summary_ends_where_something_else_begins(text: str, said: str) -> None:
    assert summary(text_of(with_doc(text))) == said


def test_what_python_wrote_is_no_docstring() -> None:
    from dataclasses import dataclass
    from enum import Enum
    from typing import NamedTuple, TypedDict

    @dataclass
    class Place:
        city: str

    class Point(NamedTuple):
        x: int

    class Options(TypedDict):
        x: int

    class Color(Enum):
        RED = 1

    for kind in (Place, Point, Options, Color):
        assert text_of(kind) == ""


@runs(max_examples=200, deadline=None)
@given(st.text(alphabet=":-= \nArgsparmx*(),.\t", max_size=120))
def test_any_text_is_read_without_error_and_names_are_names(text: str) -> None:
    doc = text_of(with_doc(text))
    assert "\n" not in summary(doc)
    for name, words in parameters(doc).items():
        assert name.isidentifier()
        assert words == " ".join(words.split())


SECTIONS = {
    "google": ("Args:\n", "    {name}: {words}\n"),
    "numpy": ("Parameters\n----------\n", "{name} : int\n    {words}\n"),
    "rest": ("", ":param {name}: {words}\n"),
}
WORDS = st.from_regex(r"[A-Z][a-z]{1,8}( [a-z]{1,8}){0,4}\.", fullmatch=True)


@pytest.mark.parametrize("style", SECTIONS)
@runs(max_examples=60, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True), WORDS, max_size=5))
def test_what_was_written_in_a_style_is_read_back(style: str, told: dict[str, str]) -> None:
    head, entry = SECTIONS[style]
    body = "".join(entry.format(name=name, words=words) for name, words in told.items())
    doc = f"A summary.\n\n{head}{body}"
    assert parameters(doc) == told
    assert summary(doc) == "A summary."
