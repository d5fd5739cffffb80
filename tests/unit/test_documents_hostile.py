"""Documents made to harm, to confuse or by accident: all are refused, quickly and with a line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fspoolfs.errors import DocumentError, TooLargeError
from fspoolfs.model import documents, formatting, sources
from fspoolfs.model.definitions import ItemDefinition, PoolDefinition

DOCUMENTS = Path(__file__).parent / "documents"
WHOLE = [path.read_bytes() for path in sorted(DOCUMENTS.glob("*.xml"))]
MiB = 1024 * 1024

LAUGHS = "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, 10))
MANY = 50_000
BOMBS = {
    "billion laughs": f"<!DOCTYPE fs [<!ENTITY l0 'lol'>{LAUGHS}]><fs><name>&l9;</name></fs>",
    "billion laughs in an attribute": f"<!DOCTYPE fs [<!ENTITY l0 'l'>{LAUGHS}]><fs><source fs='&l9;'/></fs>",
    "quadratic blow-up": f"<!DOCTYPE fs [<!ENTITY a '{'a' * MANY}'>]><fs><name>{'&a;' * MANY}</name></fs>",
    "entity in a circle": "<!DOCTYPE fs [<!ENTITY a '&b;'><!ENTITY b '&a;'>]><fs><name>&a;</name></fs>",
    "external entity": "<!DOCTYPE fs [<!ENTITY x SYSTEM 'file://{secret}'>]><fs><name>&x;</name></fs>",
    "parameter entity": "<!DOCTYPE fs [<!ENTITY % x SYSTEM 'file://{secret}'> %x;]><fs><name>i</name></fs>",
    "external type": "<!DOCTYPE fs SYSTEM 'file://{secret}'><fs><name>i</name></fs>",
    "public type": "<!DOCTYPE fs PUBLIC '-//X//X' 'http://127.0.0.1:9/x.dtd'><fs><name>i</name></fs>",
    "default attribute": "<!DOCTYPE fspool [<!ATTLIST fspool type CDATA 'dir'>]><fspool/>",
    "plain type": "<!DOCTYPE fs><fs><name>i</name></fs>",
}


def refusal(document: bytes) -> DocumentError:
    with pytest.raises(DocumentError) as refused:
        documents.parse(document)
    assert refused.value.errno == errno.EINVAL
    assert refused.value.line is not None
    return refused.value


# Document types and entities


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_document_type_is_refused_before_it_does_anything(bomb: str, encoding: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("<!ENTITY y 'confidential'>")
    error = refusal(bomb.replace("{secret}", str(secret)).encode(encoding))
    assert "confidential" not in error.sentence
    if encoding != "utf-16":
        assert error.sentence == "line 1: a document type is not accepted; remove the <!DOCTYPE>"


def test_the_line_of_a_document_type_is_told_whatever_stands_before_it() -> None:
    before = "<?xml version='1.0'?>\n<!-- <fs> -->\n<?app x?>\n\n"
    assert refusal(f"{before}<!DOCTYPE fs><fs><name>i</name></fs>".encode()).line == 5


def test_very_many_comments_before_a_document_cost_nothing() -> None:
    document = b"<!---->" * 100_000 + b"<fs><name>i</name></fs>"
    assert documents.parse(document) == ItemDefinition(name="i")


@pytest.mark.parametrize(
    "text", ["<!-- <!DOCTYPE fs> -->", "<![CDATA[<!DOCTYPE fs>]]>", "&lt;!DOCTYPE fs&gt;"]
)
def test_text_about_document_types_is_no_document_type(text: str) -> None:
    document = f"<!-- <!DOCTYPE fs> --><fs><name>i</name><metadata>{text}</metadata></fs>"
    assert "<!DOCTYPE fs" in str(documents.parse(document.encode())).replace("&lt;", "<")


@pytest.mark.parametrize("reference", ["&lol;", "&nbsp;", "&#1;", "&#xD800;", "&#0;", "& ", "&amp"])
def test_only_the_five_entities_of_xml_and_its_characters_are_known(reference: str) -> None:
    assert refusal(f"<fs>\n<name>{reference}</name></fs>".encode()).line == 2


def test_an_inclusion_is_an_unknown_element() -> None:
    include = "<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='/etc/passwd' parse='text'/>"
    error = refusal(f"<fs><name>{include}</name></fs>".encode())
    assert "unexpected element <include> of the namespace 'http://www.w3.org/2001/XInclude'" in error.sentence


# Sizes


@pytest.mark.parametrize("parse", [documents.parse, documents.parse_pool, documents.parse_item])
def test_one_byte_more_than_a_mebibyte_is_too_large(parse: type) -> None:
    with pytest.raises(TooLargeError) as refused:
        parse(b"<fs><name>i</name></fs>".ljust(MiB + 1))
    assert refused.value.errno == errno.EFBIG


def test_metadata_has_a_limit_that_leaves_room_for_all_else() -> None:
    def with_metadata(size: int) -> bytes:
        text = "x" * (size - len("<metadata></metadata>"))
        return f"<fs><name>i</name><metadata>{text}</metadata></fs>".encode()

    definition = documents.parse_item(with_metadata(documents.MAX_METADATA))
    assert documents.parse_item(formatting.format_item(definition)) == definition
    with pytest.raises(TooLargeError, match="<metadata> is larger than the 786432 bytes"):
        documents.parse_item(with_metadata(documents.MAX_METADATA + 1))


def test_metadata_that_grows_when_it_is_printed_is_measured_as_printed() -> None:
    with pytest.raises(TooLargeError, match="<metadata> is larger"):
        documents.parse_item(f"<fs><name>i</name><metadata>{'>' * 200_000}</metadata></fs>".encode())


def test_the_longest_definition_can_be_read_again() -> None:
    path = "/&" * 2000
    hosts = "".join(f"<host name='{'h' * 255}' port='65535'/>" for _ in range(sources.MAX_HOSTS))
    document = (
        f"<fspool type='network'><name>{'&amp;' * 200}</name><source>{hosts}"
        f'<dir path="{path.replace("&", "&apos;")}"/><options>{"&gt;" * 4095}</options></source>'
        f"<target><path>{path.replace('&', '&gt;')}</path></target>"
        f"<metadata>{'x' * (documents.MAX_METADATA - 21)}</metadata></fspool>"
    )
    definition = documents.parse_pool(document.encode())
    assert documents.parse_pool(formatting.format_pool(definition)) == definition


# The schema alone would take more than a minute for the attributes.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "metadata",
    [
        "<a b='1'/>" * 60_000,
        f"<a {' '.join(f'b{i}=' + repr('') for i in range(60_000))}/>",
        "<a>" * 198 + "</a>" * 198,
        "<!-- -->" * 60_000,
    ],
    ids=["elements", "attributes", "depth", "comments"],
)
def test_large_metadata_takes_time_that_grows_with_its_size_only(metadata: str) -> None:
    documents.parse_item(f"<fs><name>i</name><metadata>{metadata}</metadata></fs>".encode())


@pytest.mark.timeout(60)
@pytest.mark.parametrize("flood", ["<x/>", "<name>i</name>", "<!-- -->x", "<host name='h'/>", "<metadata/>"])
def test_a_flood_of_anything_is_refused_at_once(flood: str) -> None:
    document = f"<fspool type='network'><source>{flood * (1_000_000 // len(flood))}</source></fspool>"
    refusal(document.encode())


@pytest.mark.parametrize("depth", [201, 256, 257, 5000, 100_000])
@pytest.mark.parametrize("place", ["<fs><name>i</name><metadata>{}</metadata></fs>", "<fs>{}</fs>"])
def test_deep_nesting_is_refused(place: str, depth: int) -> None:
    refusal(place.format("<a>" * depth + "</a>" * depth).encode())


def test_metadata_may_be_as_deep_as_another_document_around_it_allows() -> None:
    inner = "<a>" * 198 + "</a>" * 198
    definition = documents.parse_item(f"<fs><name>i</name><metadata>{inner}</metadata></fs>".encode())
    assert documents.parse_item(formatting.format_item(definition)) == definition
    with pytest.raises(DocumentError, match="more than 200 deep"):
        documents.parse_item(f"<fs><name>i</name><metadata><a>{inner}</a></metadata></fs>".encode())


# Bytes


@pytest.mark.parametrize("position", [0, 3, 5, 9, 12, 18, 25])
def test_a_nul_byte_is_refused_wherever_it_stands(position: int) -> None:
    document = b"<fs><name>item</name></fs>"
    refusal(document[:position] + b"\0" + document[position:])
    refusal(document + b"\0")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"<fs><name>caf\xe9</name></fs>", "not in the encoding of the document; write UTF-8"),
        (b"<fs><name>\xed\xa0\x80</name></fs>", "not in the encoding of the document; write UTF-8"),
        (b"<fs><name>\xc3</name></fs>", "not in the encoding of the document; write UTF-8"),
        ("<fs><name>é</name></fs>".encode("utf-16") + b"x", "not in the encoding"),
        (b"<?xml version='1.0' encoding='UTF-16'?><fs><name>i</name></fs>", "malformed XML"),
        (b"<?xml version='1.0' encoding='no-such'?><fs><name>i</name></fs>", "unsupported encoding: no-such"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "no XML document"),
        (b"", "no XML document"),
        (b" \n\n", "no XML document"),
        (b"\n<?xml version='1.0'?><fs><name>i</name></fs>", "only at the start of the document"),
        (b"name: item\n", "no XML document"),
    ],
)
def test_bytes_that_are_no_text_of_xml_are_told_so(document: bytes, words: str) -> None:
    assert words in refusal(document).sentence


@pytest.mark.parametrize(
    ("document", "line", "words"),
    [
        (b"<fs>\n<name>i</name>\n<capacity>0<capacity>\n</fs>", 4, "tag mismatch: capacity line 3 and fs"),
        (b"<fs>\n<name>i</name>\n", 3, "premature end of data in tag fs line 1"),
        (b"<fs>\n<name>i</name></fs>\nx", 3, "extra content at the end of the document"),
        (b"<fs><name>i</name></fs>\n<fs/>", 2, "extra content at the end of the document"),
        (b"<fs>\n<pool ='x'/></fs>", 2, "malformed XML"),
        (b"<fs>\n<source fs='a' fs='b'/></fs>", 2, "attribute fs redefined"),
        (b"<fs>\n<x:name>i</x:name></fs>", 2, "namespace prefix x on name is not defined"),
        (b"<fs>\n<name>a<b</name></fs>", 2, "malformed XML"),
        (b"<fs><name>i</name>\n<![CDATA[</fs>", 2, "malformed XML"),
    ],
)
def test_malformed_text_is_told_with_its_line(document: bytes, line: int, words: str) -> None:
    error = refusal(document)
    assert error.line == line
    assert words in error.sentence
    assert "column" not in error.sentence


# Anything at all

PIECES = [
    *(b"<", b">", b"/>", b"</", b"'", b'"', b"&", b";", b"]]>", b"<!--", b"-->", b"<?", b"?>", b"<![CDATA["),
    *(b"\0", b"\xff", b"\xc3", b"\xe2\x80\xa8", b"\r", b"\n", b" ", b"..", b"/", b"-1", b"0", b"9" * 30),
    *(b"<fs>", b"</fs>", b"<name>", b"<metadata>", b"</metadata>", b"<target>", b"<permissions/>"),
    *(
        b"<source/>",
        b" unit='x'",
        b" xmlns='u'",
        b" xmlns:a='u'",
        b"<a:b/>",
        b"&#13;",
        b"&#x2028;",
        b"\xef\xbb\xbf",
    ),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A whole document after a few cuts, copies and insertions."""
    data = draw(st.sampled_from(WHOLE))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=3) | st.just(data[start:end] * 2))
        data = data[:start] + piece + data[end:]
    return data


def outcome(data: bytes) -> PoolDefinition | ItemDefinition | DocumentError | TooLargeError:
    try:
        return documents.parse(data)
    except (DocumentError, TooLargeError) as refused:
        return refused


@settings(max_examples=1500)
@given(damaged() | st.binary(max_size=60))
@example(b"<fs><name>a</name><metadata>\r\n&#13;</metadata></fs>")
@example(b"<fs><name>a</name><metadata a='&#10;&#9; \n'/></fs>")
def test_any_bytes_are_refused_in_words_or_become_a_definition_that_can_be_kept(data: bytes) -> None:
    result = outcome(data)
    if isinstance(result, PoolDefinition):
        assert documents.parse(formatting.format_pool(result)) == result
    elif isinstance(result, ItemDefinition):
        assert documents.parse(formatting.format_item(result)) == result
    else:
        assert result.sentence.isprintable()
        assert len(result.sentence) < 2000
        assert "does not follow its schema" not in result.sentence
