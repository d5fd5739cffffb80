"""What arrives in pieces is handed on behind whole tokens, however it is cut."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspoolfs.model.tokens import Tokens

WHOLE = [path.read_bytes() for path in sorted((Path(__file__).parent / "documents").glob("*.xml"))]
TOKEN = re.compile(
    rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|<(?:'[^']*'|\"[^\"]*\"|[^'\">])*>|&[^;]*;|[^<&]", re.S
)


def released(*pieces: bytes) -> list[bytes]:
    tokens = Tokens()
    return [tokens.take(piece) for piece in pieces]


def bytewise(document: bytes) -> list[bytes]:
    return [piece for piece in released(*(bytes([byte]) for byte in document)) if piece]


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        (b"<a>b</a>", [b"<a>", b"b", b"</a>"]),
        (b"<a b='>' c=\">'\"/>", [b"<a b='>' c=\">'\"/>"]),
        (b"<!-- <a> > -- ->-->", [b"<!-- <a> > -- ->-->"]),
        (b"<![CDATA[ <a> ]] ]]]>x", [b"<![CDATA[ <a> ]] ]]]>", b"x"]),
        (b"<?app > ??>", [b"<?app > ??>"]),
        (b"&amp;&#x41;", [b"&amp;", b"&#x41;"]),
    ],
)
def test_a_token_is_handed_on_with_its_last_byte(document: bytes, tokens: list[bytes]) -> None:
    assert bytewise(document) == tokens


@pytest.mark.parametrize("document", WHOLE)
def test_a_document_in_single_bytes_comes_out_token_by_token(document: bytes) -> None:
    assert bytewise(document) == TOKEN.findall(document)


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 2000), max_size=8))
def test_wherever_it_is_cut_nothing_ends_inside_a_token(document: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(document)) for cut in cuts), len(document)]
    pieces = released(*(document[start:end] for start, end in pairwise(edges)))
    assert b"".join(pieces) == document
    assert all(b"".join(TOKEN.findall(piece)) == piece for piece in pieces)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (b"<a <b", b""),
        (b"<a b='<", b""),
        (b"<!ELEMENT", b""),
        (b"&a ", b""),
        (b"&a<", b"<"),
        (b"<!DOCTYPE fs", b"<!DOCTYPE fs"),
    ],
)
def test_what_is_malformed_is_handed_on_at_once(text: bytes, held: bytes) -> None:
    tokens = Tokens()
    assert tokens.take(text) == text.removesuffix(held)
    assert tokens.holds(held)


def test_a_long_token_in_small_pieces_is_looked_at_once() -> None:
    """Half a mebibyte, byte by byte: looking at all of it each time would take hours."""
    tokens = Tokens()
    tokens.take(b"<!--")
    for _ in range(1 << 19):
        assert tokens.take(b">") == b""
    assert len(tokens.take(b"-->")) == (1 << 19) + 7
