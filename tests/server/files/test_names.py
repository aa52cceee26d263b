"""File names: what is taken, what is refused, and that no header is broken by one."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.files.names import disposition, file_name
from sql.files.references import stored_name


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (None, "file"),
        (b"", "file"),
        (b"a.pdf", "a.pdf"),
        ("\u00e4 \u6f22 \U0001f986.txt".encode(), "ä 漢 🦆.txt"),
        (b".env", ".env"),
    ],
)
def test_names_that_may(raw: bytes | None, name: str) -> None:
    assert file_name(raw) == name


@given(st.binary(max_size=300))
def test_no_name_breaks_it(raw: bytes) -> None:
    try:
        name = file_name(raw)
    except ValueError:
        return
    assert name
    assert not {"/", "\\", "\0", "\r", "\n", "\u202e"} & set(name)


@given(st.text(min_size=1, max_size=300))
def test_a_disposition_is_one_header_and_says_the_name(name: str) -> None:
    try:
        name = file_name(name.encode())
    except (ValueError, UnicodeEncodeError):
        return
    header = disposition("inline", name)
    assert header.isascii()
    assert not re.search(r"[\x00-\x1f\x7f]", header)
    plain, _, exact = header.partition("; filename*=UTF-8''")
    found = re.fullmatch(r'inline; filename="([^"\\]*)"', plain)
    assert found
    assert (unquote(exact) if exact else found[1]) == name


@given(st.integers(0, 2**63 - 1), st.text(max_size=300))
def test_a_stored_name_is_plain(file_id: int, name: str) -> None:
    stored = stored_name(file_id, name)
    assert re.fullmatch(rf"{file_id}(-[a-z0-9-]{{1,50}})?\.[a-z0-9]{{1,10}}", stored)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a.pdf", "7-a.pdf"), ("My File (1).TAR.GZ", "7-my-file-1-tar.gz"), ("noext", "7-noext.bin"), (".env", "7.env"),
        ("x.", "7-x.bin"), ("a.toolongextension", "7-a.bin"), ("漢字.txt", "7.txt"), ("a.p/f", "7-a.bin"),
        ("n" * 80 + ".txt", "7-" + "n" * 50 + ".txt"), ("-..-", "7.bin"), ("", "7.bin"),
    ],
)  # fmt: skip
def test_stored_names(name: str, stored: str) -> None:
    assert stored_name(7, name) == stored
