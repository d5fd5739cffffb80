"""Documents in pieces: the write that spoils one is told, the one that closes the root completes it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspoolfs.errors import DocumentError, FspoolError, TooLargeError
from fspoolfs.model import documents
from fspoolfs.model.feed import DocumentFeed

WHOLE = [path.read_bytes() for path in sorted((Path(__file__).parent / "documents").glob("*.xml"))]
ITEM = b"<fs>\n<name>i</name></fs>"


def fed(*pieces: bytes) -> DocumentFeed:
    feed = DocumentFeed()
    for piece in pieces:
        feed.feed(piece)
    return feed


def refusal(*pieces: bytes) -> FspoolError:
    """The error of the last piece; all before it are taken."""
    feed = fed(*pieces[:-1])
    with pytest.raises(FspoolError) as refused:
        feed.feed(pieces[-1])
    return refused.value


# Whole documents


@pytest.mark.parametrize("document", WHOLE)
def test_a_document_is_complete_with_the_byte_that_closes_its_root(document: bytes) -> None:
    feed = DocumentFeed()
    end = len(document.rstrip())
    completed = [feed.feed(document[index : index + 1]) for index in range(len(document))]
    assert completed == [False] * (end - 1) + [True] * (len(document) - end + 1)
    assert feed.data() == document


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 2000), max_size=8))
def test_a_document_may_be_cut_anywhere(document: bytes, cuts: list[int]) -> None:
    feed = DocumentFeed()
    edges = [0, *sorted(min(cut, len(document)) for cut in cuts), len(document)]
    for start, end in pairwise(edges):
        feed.feed(document[start:end])
    assert feed.complete
    assert documents.parse(feed.data()) == documents.parse(document)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_character_may_be_cut_in_two(encoding: str) -> None:
    document = "<fs><name>é日🐧</name></fs>".encode(encoding)
    feed = fed(*(document[index : index + 1] for index in range(len(document))))
    assert feed.complete
    assert documents.parse(feed.data()) == documents.parse(document)


@pytest.mark.parametrize("root", [b"<fs/>", b"<fs />", b"<a:b xmlns:a='urn:a'/>", b"<fs></fs >"])
def test_an_empty_root_completes_a_document(root: bytes) -> None:
    assert fed(root).complete


def test_an_empty_piece_changes_nothing() -> None:
    feed = DocumentFeed()
    assert feed.feed(b"") is False
    assert not feed.started
    assert feed.feed(ITEM) is True
    assert feed.feed(b"") is True


def test_white_space_alone_does_not_start_a_document() -> None:
    feed = fed(b" \n\t\r\n")
    assert not feed.started
    feed.feed(b"<")
    assert feed.started
    assert not feed.complete


def test_white_space_may_follow_in_the_same_piece_and_in_later_ones() -> None:
    feed = fed(ITEM + b" \n", b"\n\n", b"\t")
    assert feed.complete
    assert feed.data() == ITEM + b" \n\n\n\t"


def test_comments_and_instructions_may_stand_before_the_end() -> None:
    assert fed(b"<?xml version='1.0'?>\n<!-- a -->\n<?app b?>\n", b"<fs><!-- c --><?app d?></fs>").complete


# Faults


@pytest.mark.parametrize(
    ("pieces", "line", "words"),
    [
        ([b"bad\n"], 1, "no XML document"),
        ([b"b"], 1, "no XML document"),
        ([b"\n", b"\n", b"b"], 3, "no XML document"),
        ([b"\xef\xbb", b"\xbfb"], 1, "no XML document"),
        (["bad".encode("utf-16")], 1, "no XML document"),
        ([b"<", b"<"], 1, "not well-formed"),
        ([b"<fs>\n", b"<name>i</nam", b"e></wrong>"], 2, "mismatched tag; <fs>, which line 1 begins"),
        ([b"<fs>\n<capacity>0<capacity>\n", b"</fs>"], 3, "mismatched tag; <capacity>, which line 2 begins"),
        ([b"<fs>", b"\n<pool ='x'/>"], 2, "not well-formed"),
        ([b"<fs a='1'", b" a='2'>"], 1, "duplicate attribute"),
        ([b"<fs>", b"&lol;"], 1, "undefined entity"),
        ([b"<fs>", b"&#1;"], 1, "reference to invalid character number"),
        ([b"<fs>\n", b"<x:name/>"], 2, "unbound prefix"),
        ([b"<fs>", b"a\0"], 1, "not well-formed"),
        ([b"\0", b"\0"], 1, "not well-formed"),
        ([b"<fs>", b"\xff"], 1, "not well-formed"),
        ([b"<fs>caf\xe9", b"</fs>"], 1, "not well-formed"),
        ([b"\n<?xml version='1.0'?>"], 2, "XML or text declaration not at start"),
        (
            [b"<?xml version='1.0' encoding='UTF-16'?>"],
            1,
            "encoding specified in XML declaration is incorrect",
        ),
        ([b"<?xml version='1.0' encoding='no-such'?>"], 1, "the encoding cannot be read"),
        ([b"<?xml version='1.0' encoding='utf-7'?>"], 1, "encoding"),
    ],
)
def test_malformed_text_is_refused_by_the_very_piece(pieces: list[bytes], line: int, words: str) -> None:
    error = refusal(*pieces)
    assert isinstance(error, DocumentError)
    assert error.line == line
    assert words in error.sentence


@pytest.mark.parametrize(
    "rest",
    [
        b"x",
        b"<fs/>",
        b"</fs>",
        b"<!-- c -->",
        b"<?app c?>",
        b"\0",
        b"&amp;",
        b"]]>",
        b"\n\n<?xml version='1.0'?>",
    ],
)
def test_only_white_space_may_follow_the_end(rest: bytes) -> None:
    for error in (refusal(ITEM + rest), refusal(ITEM, rest), refusal(ITEM, b"\n", rest)):
        assert "only white space may follow the end of the document" in error.sentence


@pytest.mark.parametrize(
    "document",
    [
        "<!DOCTYPE fs>",
        "<!DOCTYPE fs [",
        "<!DOCTYPE fs [<!ENTITY a 'b'>]><fs>&a;</fs>",
        "<!DOCTYPE fs SYSTEM 'file:///etc/passwd'>",
        "<!-- -->\n<!DOCTYPE fs PUBLIC 'a' 'b' [",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused_where_it_begins(document: str, encoding: str) -> None:
    error = refusal(document.encode(encoding))
    assert error.sentence.endswith("a document type is not accepted; remove the <!DOCTYPE>")


def test_deep_nesting_is_refused_by_the_piece_that_goes_too_deep() -> None:
    assert not fed(b"<a>" * 200).complete
    assert "more than 200 deep" in refusal(b"<a>" * 200, b"<a>").sentence
    assert "more than 200 deep" in refusal(b"<a>" * 100_000).sentence


def test_one_byte_more_than_a_mebibyte_is_refused() -> None:
    full = ITEM.ljust(documents.MAX_DOCUMENT)
    assert fed(full).complete
    for error in (refusal(full, b" "), refusal(full + b" ")):
        assert isinstance(error, TooLargeError)


@pytest.mark.parametrize("fault", [b"<a></b>", b"\0\0", b"<!DOCTYPE a>", b" " * (documents.MAX_DOCUMENT + 1)])
def test_after_a_fault_every_piece_is_refused_again(fault: bytes) -> None:
    feed = DocumentFeed()
    sentences = set()
    for piece in (fault, ITEM, b"", b" "):
        with pytest.raises(FspoolError) as refused:
            feed.feed(piece)
        sentences.add(refused.value.sentence)
    assert len(sentences) == 1
    assert not feed.complete


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ([], "line 1: the document ends before its first element"),
        ([b"<?xml version='1.0'?>\n<!-- x -->\n"], "line 3: the document ends before its first element"),
        (
            [b"<fs>\n<name>i</name>\n<source>\n"],
            "line 4: the document ends inside <source>, which line 3 begins",
        ),
        ([b"<x:fs xmlns:x='urn:x y'>\n"], "line 2: the document ends inside <fs>, which line 1 begins"),
    ],
)
def test_an_unfinished_document_is_told_where_it_ends(pieces: list[bytes], sentence: str) -> None:
    feed = fed(*pieces)
    assert not feed.complete
    assert feed.unfinished().sentence == sentence


# Agreement with parsing


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(WHOLE))
    start = draw(st.integers(0, len(data)))
    end = min(len(data), start + draw(st.integers(0, 5)))
    return (
        data[:start]
        + draw(st.binary(max_size=2) | st.sampled_from([b"<", b">", b"&", b"'", b"</fs>"]))
        + data[end:]
    )


@given(spoiled())
def test_what_parsing_accepts_is_complete_when_it_is_fed(document: bytes) -> None:
    try:
        documents.parse(document)
    except FspoolError:
        return
    # White space only may follow here, and parsing also takes a comment.
    assert fed(document[: document.rindex(b">") + 1]).complete
