"""Names and paths: what is accepted, in which spelling, and the sentences of refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from fspoolfs import names
from fspoolfs.errors import InvalidError

CONTROL = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029", "\ufffe", "\uffff"]


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "web",
        "web-1",
        "web.old",
        "a b",
        " ",
        "~",
        "C:",
        "*",
        "\\",
        "'",
        "<&>",
        "café",
        "日本語",
        "🐧",
        "x" * 200,
    ],
)
def test_a_name_is_any_text_of_up_to_200_bytes(name: str) -> None:
    assert names.check_name(name) == name
    assert names.check_name(name.encode()) == name


@pytest.mark.parametrize("name", ["x" * 200, "é" * 100, "x" + "é" * 99 + "x", "🐧" * 50])
def test_200_bytes_are_a_name(name: str) -> None:
    assert names.check_name(name) == name


@pytest.mark.parametrize("name", ["x" * 201, "x" * 256, "é" * 101, "🐧" * 51, "x" * 4000])
def test_more_than_200_bytes_are_no_name(name: str) -> None:
    with pytest.raises(InvalidError, match=f"is {len(name.encode())} bytes long; at most 200"):
        names.check_name(name)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "is empty"),
        (b"", "is empty"),
        ("/", "holds a slash"),
        ("a/b", "holds a slash"),
        ("../a", "holds a slash"),
        (".", r"begins with '\.'"),
        ("..", r"begins with '\.'"),
        (".hidden", r"begins with '\.'"),
        ("-rf", "begins with '-'"),
        ("a\nb", r"holds U\+000A, a control character"),
        ("a\0", r"holds U\+0000, a control character"),
        ("a\u2028b", r"holds U\+2028, a line break"),
        ("a\ufffeb", r"holds U\+FFFE, which no document can hold"),
        (b"\xff", "is not UTF-8"),
        (b"caf\xe9", "is not UTF-8"),
        (b"\xed\xa0\x80", "is not UTF-8"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_a_refused_name_is_told_its_fault(name: str | bytes, fault: str) -> None:
    with pytest.raises(InvalidError, match=fault):
        names.check_name(name)


@pytest.mark.parametrize("character", CONTROL, ids=lambda character: f"U+{ord(character):04X}")
def test_no_control_character_is_in_a_name_or_a_path(character: str) -> None:
    for check, text in (
        (names.check_name, f"a{character}b"),
        (names.check_item_path, f"/a{character}b"),
        (names.check_target_path, f"/a{character}b"),
    ):
        with pytest.raises(InvalidError, match="holds U"):
            check(text)


def test_a_refusal_says_what_was_to_be_named() -> None:
    with pytest.raises(InvalidError, match=r"^snapshot name 'a/b' "):
        names.check_name("a/b", "snapshot name")


def refusal(name: str | bytes) -> str:
    """The sentence with which `name` is refused, empty where it is accepted."""
    try:
        names.check_name(name)
    except InvalidError as refused:
        return refused.sentence
    return ""


@given(st.one_of(st.text(), st.binary(), st.text(st.characters(codec=None, categories=["Cc", "Cs"]))))
def test_a_refusal_is_one_short_printable_line(name: str | bytes) -> None:
    sentence = refusal(name)
    assert sentence.isprintable()
    assert len(sentence) < 800


@given(st.text(max_size=80))
def test_every_accepted_name_can_stand_in_a_document(name: str) -> None:
    try:
        names.check_name(name)
    except InvalidError:
        return
    element = etree.Element("name")
    element.text = name
    assert etree.fromstring(etree.tostring(element)).text == name


@pytest.mark.parametrize(
    "path", ["/a", "/a/b", "/customers/web", "/-a/..b/...", "/a/.fspool", "/.fspoolx", "/é"]
)
def test_an_item_path_counts_from_the_root_of_the_pool(path: str) -> None:
    assert names.check_item_path(path) == path


@pytest.mark.parametrize(
    ("path", "canonical"),
    [("//a", "/a"), ("/a/", "/a"), ("/a//b", "/a/b"), ("///a///b///", "/a/b"), ("/a b/ ", "/a b/ ")],
)
def test_duplicate_and_trailing_slashes_are_squeezed(path: str, canonical: str) -> None:
    assert names.check_item_path(path) == canonical
    assert names.check_target_path(path) == canonical


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("", "is empty"),
        ("a", "is not absolute; it counts from the pool's root, as /a"),
        ("/", "is the pool's root"),
        ("///", "is the pool's root"),
        ("/..", r"holds '\.\.'"),
        ("/a/../b", r"holds '\.\.'"),
        ("/a/..", r"holds '\.\.'"),
        ("/./a", r"holds '\.'"),
        ("/a/.", r"holds '\.'"),
        ("/.fspool", "belongs to fspoolfs"),
        ("//.fspool/", "belongs to fspoolfs"),
        ("/.fspool/items", "belongs to fspoolfs"),
        ("/" + "x" * 256, "more than 255 bytes"),
        ("/a/" + "é" * 128, "more than 255 bytes"),
        ("/a" * 2001, "longer than 4000 bytes"),
        ("/é" * 1334, "longer than 4000 bytes"),
        ("/\udcff", "is not UTF-8"),
    ],
)
def test_a_refused_item_path_is_told_its_fault(path: str, fault: str) -> None:
    with pytest.raises(InvalidError, match=fault):
        names.check_item_path(path)


@pytest.mark.parametrize("path", ["/a" * 2000, "/" + "x" * 255, "/" + "é" * 127, "/é" * 1333])
def test_paths_reach_up_to_their_limits(path: str) -> None:
    assert names.check_item_path(path) == path
    assert names.check_target_path(path) == path


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("", "is empty"),
        ("srv/tank", "is not absolute"),
        ("/", "is the root directory of the host"),
        ("//", "is the root directory of the host"),
        ("/srv/../etc", r"holds '\.\.'"),
        ("/srv/./tank", r"holds '\.'"),
        ("/srv/\n", r"holds U\+000A"),
    ],
)
def test_a_refused_target_path_is_told_its_fault(path: str, fault: str) -> None:
    with pytest.raises(InvalidError, match=fault):
        names.check_target_path(path)


def test_a_target_may_be_called_as_the_directory_that_is_reserved_in_pools() -> None:
    assert names.check_target_path("/.fspool") == "/.fspool"


@given(st.lists(st.text(alphabet="ab./-", max_size=6), max_size=6).map("/".join))
def test_a_canonical_path_is_its_own_canonical_spelling(path: str) -> None:
    for check in (names.check_item_path, names.check_target_path):
        try:
            canonical = check(path)
        except InvalidError:
            continue
        assert check(canonical) == canonical
        assert "//" not in canonical
