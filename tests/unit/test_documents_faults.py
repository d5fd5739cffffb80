"""Documents with one fault each, made from whole ones: the line and the words of the refusal.

What reading refuses, the schema must refuse too, so that other validators that use it agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest
from lxml import etree

from fspoolfs.errors import DocumentError
from fspoolfs.model import documents, sources

FULL = ["full-volume.xml", "full-device.xml", "full-network.xml", "full-dir.xml", "full-item.xml"]
DOCUMENTS = Path(__file__).parent / "documents"
SCHEMA = etree.RelaxNG(
    etree.fromstring(resources.files("fspoolfs.model").joinpath("fspool.rng").read_bytes())
)
#: Without these a document is refused; a source must keep one of host and dir.
REQUIRED = {
    "name": "lacks its <name>",
    "source/pool": "lacks <pool> and <volume>, or <device>",
    "source/volume": "lacks <pool> and <volume>, or <device>",
    "source/device": "lacks <pool> and <volume>, or <device>",
    "idmap/uid": "<idmap> holds from 1 to 340 <uid> elements",
    "idmap/gid": "<idmap> holds from 1 to 340 <gid> elements",
}
REQUIRED_ATTRIBUTES = {"type", "name", "path", "retention", "file", "start", "target", "count"}
#: Element or attribute → texts that it does not take, and the words of the refusal.
WRONG_TEXTS = {
    "name": (["", "a/b", "..", ".a", "-a", "a\nb", "a\x85b", "x" * 201, "é" * 101], "<name>: name "),
    "uuid": (
        ["", "cb07b799", "cb07b799-8e03-485c-aaa0-7c88f60b37bg", "{cb07b7998e03485caaa07c88f60b37b0}"],
        "uuid",
    ),
    "capacity": (["", "ten", "-1", "1.5", "10G", "1 0", "9999999999999999999"], "<capacity>: "),
    "quota": (["ten", "0", "-1", "1.5", "10G", "1 0", "9999999999999999999"], "<quota>"),
    "files": (["", "0", "-1", "+1", "many", "1.5", "1K", "9999999999999999999", "9" * 20], "<files>: "),
    "path": (["", "srv", "/", "/a/../b", "/a\tb", "/" + "x" * 256, "/a" * 2001], "<path>: "),
    "mode": (["", "rwx", "0o755", "8", "-1", "10000", "0755 0"], "is not a mode"),
    "owner": (["", "root", "-2", "1.0", "4294967295", "99999999999"], "is not a whole number"),
    "group": (["", "wheel", "-2", "0x10", "4294967295"], "is not a whole number"),
    "options": (["", "  ", "a\nb", "a\x7fb"], "<options>: "),
    "io.max": (["", " ", "ü"], "is not a value for a cgroup"),
    "memory.max": (["", "\u00a0"], "is not a value for a cgroup"),
}
WRONG_ATTRIBUTES = {
    "fspool/@type": ["", "Dir", "lvm", "dir "],
    "capacity/@unit": ["", "Ki", "GBit", " bytes"],
    "uid/@start": ["", "-1", "4294967295", "root"],
    "uid/@target": ["", "-1", "4294967295"],
    "uid/@count": ["", "0", "-1", "4294967296", "all"],
    "gid/@start": ["", "x"],
    "gid/@target": ["", "x"],
    "gid/@count": ["", "0"],
    "quota/@unit": ["", "Ki", " bytes"],
    "quota/@user": ["", "root", "-1", "1.0", "4294967295"],
    "quota/@group": ["", "wheel", "-2", "0x10", "4294967295"],
    "quota/@items": ["", "0", "-1", "many", "1K"],
    "capacity/@soft": ["", "0%", "101%", "80 %", "-1%", "0", "0GiB", "1.5GiB", "4XB", "none", "9999999E"],
    "pool/@name": ["", "a/b"],
    "pool/@provider": ["", "LVM", "a b", "-x"],
    "volume/@name": ["", "../vol"],
    "device/@path": ["", "sdb", "/dev/../etc"],
    "host/@name": ["", "-oProxyCommand=x", "a b", "a/b", "x" * 256, "h\n"],
    "host/@port": ["", "0", "65536", "ssh", "-1"],
    "dir/@path": ["", "-a", "../x", "/a\x80"],
    "format/@type": ["", "EXT4", "-t", "ext4 "],
    "auth/@type": ["", "SSHFS", "-t"],
    "auth/@username": ["", "-l", "a b", "a,b", "a:b", "u" * 129, "ü"],
    "secret/@file": ["", "keys/x", "/a/../b", "/a\x80"],
    "hosts/@file": ["", "-", "/"],
    "config/@file": ["", "ceph.conf", "/a\n"],
    "trash/@retention": ["", "soon", "1w", "-1h"],
    "source/@fspool": ["", "a/b", ".a"],
    "source/@fs": ["", "-b"],
    "source/@snapshot": ["", "v/1"],
}
#: What the grammar cannot say, and reading alone refuses.
BEYOND_THE_SCHEMA = {
    "é" * 101,
    "9999999999999999999",
    "9999999E",
    "/a/../b",
    "/" + "x" * 256,
    "/a" * 2001,
    "/dev/../etc",
    "../x",
}


@dataclass(frozen=True)
class Spot:
    """One element of a whole document."""

    document: str
    place: str

    def __str__(self) -> str:
        return f"{self.document.removesuffix('.xml')}-{self.place.replace('/', '.')}"

    def open(self) -> tuple[etree._Element, etree._Element]:
        """The document's root, and the element, in a tree of their own."""
        root = etree.fromstring((DOCUMENTS / self.document).read_bytes())
        found = root if self.place == "." else root.find(self.place)
        assert found is not None
        return root, found


def spots() -> Iterator[Spot]:
    for name in FULL:
        root = etree.parse(DOCUMENTS / name).getroot()
        for element in root.iter("*"):
            if not any(True for _ in element.iterancestors("metadata")):
                yield Spot(name, root.getroottree().getelementpath(element))


SPOTS = list(spots())
INNER = [spot for spot in SPOTS if spot.place != "."]
OUTSIDE_METADATA = [spot for spot in SPOTS if spot.place != "metadata"]


def tag(element: etree._Element) -> str:
    return str(element.tag)


def refusal(root: etree._Element) -> str:
    with pytest.raises(DocumentError) as refused:
        documents.parse(etree.tostring(root))
    assert refused.value.line is not None
    assert refused.value.sentence.startswith(f"line {refused.value.line}: ")
    return refused.value.sentence


def by_name(spot: Spot) -> str:
    return str(spot)


def test_the_whole_documents_have_every_element_of_the_grammar() -> None:
    grammar = etree.fromstring(resources.files("fspoolfs.model").joinpath("fspool.rng").read_bytes())
    space = {"r": "http://relaxng.org/ns/structure/1.0"}
    known = set(grammar.xpath("//r:element/@name", namespaces=space))
    met = {tag(spot.open()[1]) for spot in SPOTS}
    assert known - met == {"allocation", "available"}


@pytest.mark.parametrize("spot", INNER, ids=by_name)
def test_an_element_is_left_out_only_where_it_is_optional(spot: Spot) -> None:
    root, element = spot.open()
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)
    required = REQUIRED.get(spot.place)
    if spot.place == "source" and root.get("type") in {"volume", "network"}:
        required = f"a pool of type {root.get('type')} lacks its <source>"
    if required is None:
        documents.parse(etree.tostring(root))
    else:
        assert required in refusal(root)
    assert SCHEMA.validate(root) is (required is None)


@pytest.mark.parametrize("spot", INNER, ids=by_name)
def test_an_element_stands_only_once(spot: Spot) -> None:
    root, element = spot.open()
    parent = element.getparent()
    assert parent is not None
    twin = etree.fromstring(etree.tostring(element, with_tail=False))
    parent.append(twin)
    if tag(element) == "quota":
        assert "a second quota of " in refusal(root) or "stand together" in refusal(root)
        return  # which the grammar does not say
    if tag(element) in ("uid", "gid"):
        assert "overlap" in refusal(root)
        return  # which the grammar does not say
    if tag(element) == "host":
        documents.parse(etree.tostring(root))
        return
    line = etree.tostring(root)[: etree.tostring(root).rindex(f"<{tag(element)}".encode())].count(b"\n") + 1
    assert refusal(root) == f"line {line}: <{tag(element)}> stands twice in <{tag(parent)}>"
    assert not SCHEMA.validate(root)


@pytest.mark.parametrize("spot", OUTSIDE_METADATA, ids=by_name)
def test_an_unknown_element_is_refused_by_name_and_line(spot: Spot) -> None:
    root, element = spot.open()
    stranger = etree.SubElement(element, "foo")
    stranger.tail = "\n"
    line = etree.fromstring(etree.tostring(root)).find(".//foo")
    assert line is not None
    sentence = refusal(root)
    assert sentence.startswith(f"line {line.sourceline}: unexpected element <foo> in ")
    assert f"<{tag(element)}>" in sentence
    assert not SCHEMA.validate(root)


@pytest.mark.parametrize("spot", OUTSIDE_METADATA, ids=by_name)
def test_an_element_of_another_namespace_is_unknown(spot: Spot) -> None:
    root, element = spot.open()
    etree.SubElement(element, "{urn:x}name")
    assert "unexpected element <name> of the namespace 'urn:x'" in refusal(root)
    assert not SCHEMA.validate(root)


@pytest.mark.parametrize("spot", OUTSIDE_METADATA, ids=by_name)
def test_an_unknown_attribute_is_refused_by_name(spot: Spot) -> None:
    root, element = spot.open()
    element.set("foo", "1")
    assert f"unexpected attribute 'foo' of <{tag(element)}>" in refusal(root)
    assert not SCHEMA.validate(root)


@pytest.mark.parametrize("spot", [spot for spot in OUTSIDE_METADATA if len(spot.open()[1])], ids=by_name)
def test_text_between_elements_is_refused_but_in_the_source_of_a_pool(spot: Spot) -> None:
    root, element = spot.open()
    element[-1].tail = " foo "
    if spot.place == "source":
        assert documents.parse(etree.tostring(root)) == documents.parse(etree.tostring(spot.open()[0]))
    else:
        assert refusal(root).endswith(f": unexpected text 'foo' in <{tag(element)}>")
    assert SCHEMA.validate(root) is (spot.place == "source")


@pytest.mark.parametrize("spot", SPOTS, ids=by_name)
def test_attributes_are_left_out_only_where_they_are_optional(spot: Spot) -> None:
    root, element = spot.open()
    for name in element.keys():  # noqa: SIM118 - an element iterates over its children
        value = element.attrib.pop(name)
        required = name in REQUIRED_ATTRIBUTES
        if name == "fs":
            assert "names a snapshot but lacks its attribute 'fs'" in refusal(root)
            required = True
        elif required:
            assert f"<{tag(element)}> lacks its attribute {name!r}" in refusal(root)
        else:
            documents.parse(etree.tostring(root))
        assert SCHEMA.validate(root) is not required
        element.set(name, value)


@pytest.mark.parametrize("spot", [spot for spot in SPOTS if tag(spot.open()[1]) in WRONG_TEXTS], ids=by_name)
def test_a_text_of_the_wrong_kind_is_refused(spot: Spot) -> None:
    root, element = spot.open()
    texts, words = WRONG_TEXTS[tag(element)]
    for text in texts:
        element.text = text
        assert words in refusal(root)
        assert SCHEMA.validate(root) is (text in BEYOND_THE_SCHEMA), text


@pytest.mark.parametrize("spot", SPOTS, ids=by_name)
def test_an_attribute_of_the_wrong_kind_is_refused(spot: Spot) -> None:
    root, element = spot.open()
    for name, value in element.items():
        for wrong in WRONG_ATTRIBUTES[f"{tag(element)}/@{name}"]:
            element.set(name, wrong)
            sentence = refusal(root)
            assert f"<{tag(element)}>: " in sentence
            assert SCHEMA.validate(root) is (wrong in BEYOND_THE_SCHEMA), wrong
        element.set(name, value)


# Faults that need more than one element


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ("<quota>5</quota><quota items='1'/>", "a second quota of the pool"),
        ("<quota user='7'>5</quota><quota user='07' unit='K'>1</quota>", "a second quota of user 7"),
        (
            "<quota>5</quota><metadata/><quota user='7'>5</quota>",
            "the <quota> elements of a pool stand together",
        ),
    ],
)
def test_each_has_one_quota_and_all_stand_together(inner: str, words: str) -> None:
    assert words in refusal(etree.fromstring(f"<fspool type='dir'><name>p</name>{inner}</fspool>"))


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (
            "<target><permissions/></target><permissions/>",
            "<permissions> stands both inside <target> and beside it",
        ),
        (
            "<source><host name='h'/></source>",
            "unexpected element <host> in the <source> of a pool of type dir",
        ),
        ("<source>remark</source>", "unexpected text 'remark' in <source>"),
        ("<permissions><cgroups/></permissions>", "unexpected element <cgroups> in <permissions>"),
        ("<defaults><mode>1</mode></defaults>", "unexpected element <mode> in <defaults>"),
        ("<files>5</files>", "unexpected element <files> in <fspool>"),
        ("<quota/>", "<quota> limits nothing; write a size above 0, or a number of items, or leave it out"),
        (
            "<quota user='0'/>",
            "<quota> limits nothing; write a size above 0, or a number of items, or leave it out",
        ),
        ("<quota user='1' group='1'>5</quota>", "<quota> is a user's or a group's, not both; write two"),
        ("<capacity soft='80%'>5</capacity>", "unexpected attribute 'soft' of <capacity>"),
    ],
)
def test_what_a_dir_pool_cannot_hold_is_refused(inner: str, words: str) -> None:
    root = etree.fromstring(f"<fspool type='dir'><name>p</name>{inner}</fspool>")
    assert refusal(root) == f"line 1: {words}"
    assert not SCHEMA.validate(root)


@pytest.mark.parametrize(
    ("kind", "source", "words"),
    [
        ("volume", "<host name='h'/>", "unexpected element <host> in the <source> of a pool of type volume"),
        ("volume", "<dir path='/x'/>", "unexpected element <dir> in the <source> of a pool of type volume"),
        ("volume", "", "lacks <pool> and <volume>, or <device>"),
        ("volume", "<pool name='p'/><volume name='v'/><device path='/dev/sdb'/>", "<device> excludes <pool>"),
        ("volume", "<volume name='v'/><device path='/dev/sdb'/>", "<device> excludes <pool>"),
        (
            "network",
            "<pool name='p'/>",
            "unexpected element <pool> in the <source> of a pool of type network",
        ),
        (
            "network",
            "<device path='/x'/>",
            "unexpected element <device> in the <source> of a pool of type network",
        ),
        ("network", "", "lacks a <host> or a <dir>"),
        ("network", "<format type='nfs'/>", "lacks a <host> or a <dir>"),
    ],
)
def test_a_source_holds_what_belongs_to_the_type_of_its_pool(kind: str, source: str, words: str) -> None:
    root = etree.fromstring(f"<fspool type='{kind}'><name>p</name><source>{source}</source></fspool>")
    assert words in refusal(root)
    assert not SCHEMA.validate(root)


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (
            "<target><permissions/></target><permissions/>",
            "<permissions> stands both inside <target> and beside it",
        ),
        (
            "<source fspool='t'>fspool='t'</source>",
            "unexpected text \"fspool='t'\" in <source>, which has attributes",
        ),
        ("<source>fspool=t</source>", "names no pool; write <source fspool='NAME'/>"),
        ("<source>fspool=''</source>", "name is empty"),
        ("<source>fspool='a/b'</source>", "holds a slash"),
        ("<source><host name='h'/></source>", "unexpected element <host> in <source>"),
        ("<target><path>/.fspool/x</path></target>", "which belongs to fspoolfs"),
        ("<defaults/>", "unexpected element <defaults> in <fs>"),
        ("<trash retention='1h'/>", "unexpected element <trash> in <fs>"),
    ],
)
def test_what_an_item_cannot_hold_is_refused(inner: str, words: str) -> None:
    root = etree.fromstring(f"<fs><name>i</name>{inner}</fs>")
    assert words in refusal(root)
    assert SCHEMA.validate(root) is ("/.fspool/" in inner)


@pytest.mark.parametrize(
    "capacity", ["<capacity soft='80%'>0</capacity>", "<capacity unit='G' soft='80%'> 0 </capacity>"]
)
@pytest.mark.parametrize(
    "document",
    ["<fs><name>i</name>\n{}</fs>", "<fspool type='dir'><name>p</name>\n<defaults>{}</defaults></fspool>"],
)
def test_a_part_of_no_capacity_is_refused(document: str, capacity: str) -> None:
    root = etree.fromstring(document.format(capacity))
    assert refusal(root) == (
        "line 2: the soft limit 80% is a part of a capacity, and <capacity> says that there is none; write a "
        "capacity, or a size as the soft limit"
    )
    assert not SCHEMA.validate(root)


def test_an_unknown_limit_is_refused_with_the_known_ones() -> None:
    root = etree.fromstring(
        "<fs><name>i</name><permissions><cgroups>\n<io.bfq.weight>1</io.bfq.weight></cgroups></permissions></fs>"
    )
    assert refusal(root) == (
        "line 2: unexpected element <io.bfq.weight> in <cgroups>, which holds io.max, io.weight, io.latency, "
        "memory.max, memory.high, pids.max, cpu.max"
    )
    assert not SCHEMA.validate(root)


def test_the_hosts_of_a_source_are_numbered() -> None:
    hosts = "<host name='h'/>" * sources.MAX_HOSTS
    document = "<fspool type='network'><name>p</name><source>{}</source></fspool>"
    assert len(documents.parse_pool(document.format(hosts).encode()).source.hosts) == 64
    with pytest.raises(DocumentError, match="has 65 hosts; at most 64"):
        documents.parse_pool(document.format(hosts + "<host name='h'/>").encode())


def test_what_reading_would_let_pass_the_schema_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_ITEM_PARTS", frozenset({"name", "foo"}))
    root = etree.fromstring("<fs>\n<name>i</name>\n<foo/></fs>")
    assert "the document does not follow its schema: " in refusal(root)
