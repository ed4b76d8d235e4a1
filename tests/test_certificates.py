"""What is read of PEM files, and what is said of wrong ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom_sdk.certificates import TlsFiles, validity
from loom_sdk.errors import ConfigError

from .authority import Authority


def files(
    authority: Authority, name: str = "host", *, days: float = 5, began: float = -10
) -> TlsFiles:
    return TlsFiles(authority.ca, *authority.issue(name, days=days, began=began))


@pytest.mark.parametrize("days", [1, 365, 365 * 30])
def test_the_dates_of_a_certificate_are_read(tmp_path: Path, days: int) -> None:
    """Beyond 2049 they are written in another way."""
    first, last = validity(Authority(tmp_path).issue("host", days=days)[0].read_bytes())
    second = timedelta(seconds=5)
    assert abs(last - datetime.now(UTC) - timedelta(days=days)) < second
    assert abs(datetime.now(UTC) - first - timedelta(days=10)) < second


def test_good_files_are_read_as_they_are(tmp_path: Path) -> None:
    good = files(Authority(tmp_path))
    pems = good.read()
    assert (pems.ca, pems.cert, pems.key) == tuple(
        path.read_bytes() for path in (good.ca, good.cert, good.key)
    )


def test_each_wrong_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good = files(authority)
    text = tmp_path / "text.pem"
    text.write_text("hello")
    for wrong, words in (
        (TlsFiles(text, good.cert, good.key), f"{text} holds no certificate"),
        (TlsFiles(good.ca, text, good.key), f"{text} holds no certificate"),
        (TlsFiles(good.ca, good.cert, text), f"{text} is no private key"),
        (TlsFiles(good.ca, good.cert, tmp_path / "no"), f"{tmp_path / 'no'}: No such file"),
        (TlsFiles(good.ca, good.cert, tmp_path), f"{tmp_path}: Is a directory"),
        (files(authority, "old", days=-1), "old.pem expired on .* renew it"),
        (files(authority, "new", began=1), "new.pem is valid from .* set this machine's clock"),
        (TlsFiles(good.ca, good.cert, files(authority, "other").key), "is not the key of"),
    ):
        with pytest.raises(ConfigError, match=words):
            wrong.read()


@given(st.binary(max_size=300))
def test_no_bytes_are_more_than_a_value_error(data: bytes) -> None:
    import base64

    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----"
    for text in (data, pem):
        with pytest.raises(ValueError, match="."):
            validity(text)
