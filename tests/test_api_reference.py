"""The API reference is what the source says, and says something of everything."""

from __future__ import annotations

import re

from tools import api


def test_the_reference_is_current() -> None:
    texts = api.generate()
    there = {path.name: path.read_text() for path in api.TARGET.glob("*.md")}
    stale = sorted(name for name in texts | there if texts.get(name) != there.get(name))
    assert not stale, "run `make api`"


def test_every_public_name_of_the_sdk_and_the_host_has_words() -> None:
    for name in ("loom_sdk.md", "loom_sdk.testing.md", "loom_host.md"):
        text = (api.TARGET / name).read_text()
        for entry in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
            title, _, rest = entry.partition("\n")
            said = rest.partition("### ")[0].replace("`", "").strip().splitlines()
            assert len(said) > 1, f"{name}: {title} has no docstring"


def test_what_is_documented_is_exported() -> None:
    import loom_host
    import loom_sdk
    import loom_sdk.testing

    for module in (loom_sdk, loom_sdk.testing, loom_host):
        text = (api.TARGET / f"{module.__name__}.md").read_text()
        titles = re.findall(r"^## (\w+)$", text, re.MULTILINE)
        known = set(loom_sdk.__all__) if module is loom_host else set()
        assert set(titles) == set(module.__all__) - known
