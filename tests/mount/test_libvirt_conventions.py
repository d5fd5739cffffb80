"""What is known from libvirt's storage pools holds here: sizes, permissions, names, uuids, paths."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from support.needs import needs_root

pytestmark = [needs_root, pytest.mark.required]

#: Pools in the forms of libvirt's storage format page, under the names that they have there.
POOLS = {
    "directory": """
        <fspool type="dir">
          <name>NAME</name>
          <target><path>ROOT/var/lib/virt/images</path></target>
        </fspool>""",
    "directory, as dumped": """
        <fspool type='dir'>
          <name>NAME</name>
          <uuid>UUID</uuid>
          <allocation unit='bytes'>32212254720</allocation>
          <available unit='bytes'>75161927680</available>
          <source>
          </source>
          <target>
            <path>ROOT/var/lib/libvirt/images</path>
            <permissions>
              <mode>0711</mode>
              <owner>0</owner>
              <group>0</group>
            </permissions>
          </target>
        </fspool>""",
    "fs": """
        <fspool type="volume">
          <name>NAME</name>
          <source>
            <device path="/dev/VolGroup00/VirtImages"/>
          </source>
          <target><path>ROOT/var/lib/virt/images</path></target>
        </fspool>""",
    "netfs": """
        <fspool type="network">
          <name>NAME</name>
          <source>
            <host name="nfs.example.com"/>
            <dir path="/var/lib/virt/images"/>
            <format type='nfs'/>
          </source>
          <target><path>ROOT/var/lib/virt/images</path></target>
        </fspool>""",
    "gluster": """
        <fspool type="network">
          <name>NAME</name>
          <source>
            <host name='localhost' port='24007'/>
            <host name='fe80::1%eth0'/>
            <dir path='/'/>
          </source>
        </fspool>""",
}


@pytest.mark.parametrize("form", POOLS)
def test_a_pool_in_libvirts_form_is_defined(tree: ControlTree, form: str) -> None:
    name, uuid = tree.new_name(), "3e3fce45-4f53-4fa7-bb32-{:012x}"
    document = POOLS[form].replace("NAME", name).replace("ROOT", f"/nowhere/{name}")
    request(tree.define, document.replace("UUID", uuid.format(int(name.removeprefix("pool")))))
    pool = tree.pools / name
    assert value(pool / "status") == "inactive"
    printed = (pool / "config.xml").read_text()
    request(pool / "config.xml", printed)
    assert (pool / "config.xml").read_text() == printed


def test_a_directory_s_capacity_in_a_dump_is_refused_since_nothing_would_enforce_it(
    tree: ControlTree,
) -> None:
    name = tree.new_name()
    capacity = "<capacity unit='bytes'>107374182400</capacity>"
    with refused(errno.EOPNOTSUPP):
        request(tree.define, f"<fspool type='dir'><name>{name}</name>{capacity}</fspool>")
    assert "leave <capacity> out" in last_error(tree.mount)
    assert not (tree.pools / name).exists()


def element(pool: Path, path: str) -> str | None:
    """The text of an element of the pool's definition."""
    return ElementTree.parse(pool / "config.xml").getroot().findtext(path)


def with_permissions(inner: str) -> str:
    return f"<target><permissions>{inner}</permissions></target>"


# Sizes


@pytest.mark.parametrize(
    ("unit", "scale"),
    [
        ("", 1),
        *((f" unit='{unit}'", 1) for unit in ("B", "b", "bytes", "byte")),
        *(
            (f" unit='{spelling}'", 1024**power)
            for power, letter in enumerate("KMGTPE", start=1)
            for spelling in (letter, f"{letter}iB", letter.lower(), f"{letter.lower()}ib")
        ),
        *(
            (f" unit='{spelling}'", 1000**power)
            for power, letter in enumerate("KMGTPE", start=1)
            for spelling in (f"{letter}B", f"{letter}b".lower())
        ),
    ],
)
def test_a_size_is_scaled_by_its_unit_and_shown_in_bytes(tree: ControlTree, unit: str, scale: int) -> None:
    pool = tree.defined_pool(f"<defaults><capacity{unit}> 3 </capacity></defaults>")
    assert element(pool, "defaults/capacity") == str(3 * scale)
    assert "<capacity unit='bytes'>" in (pool / "config.xml").read_text()
    pool.rmdir()


@pytest.mark.parametrize(
    "capacity",
    [
        "<capacity>-1</capacity>",
        "<capacity>1.5</capacity>",
        "<capacity>0x10</capacity>",
        "<capacity>ten</capacity>",
        "<capacity>10G</capacity>",
        "<capacity/>",
        "<capacity unit='X'>1</capacity>",
        "<capacity unit=''>1</capacity>",
        "<capacity unit='Gi'>1</capacity>",
        "<capacity unit='ZiB'>1</capacity>",
        "<capacity unit='EiB'>8</capacity>",
        "<capacity>9223372036854775808</capacity>",
        f"<capacity>{'9' * 5000}</capacity>",
    ],
)
def test_a_size_that_is_none_is_refused(tree: ControlTree, capacity: str) -> None:
    before = os.listdir(tree.pools)
    with refused(errno.EINVAL):
        tree.defined_pool(f"<defaults>{capacity}</defaults>")
    assert "<capacity>" in last_error(tree.mount)
    assert os.listdir(tree.pools) == before


def test_the_largest_size_is_that_of_a_file(tree: ControlTree) -> None:
    pool = tree.defined_pool("<defaults><capacity>9223372036854775807</capacity></defaults>")
    assert element(pool, "defaults/capacity") == "9223372036854775807"


@pytest.mark.parametrize("report", ["allocation", "available"])
@pytest.mark.parametrize("text", ["0", "12345", "", "nonsense"])
def test_what_only_reports_is_taken_and_forgotten(tree: ControlTree, report: str, text: str) -> None:
    pool = tree.defined_pool(f"<{report} unit='G'>{text}</{report}>")
    assert report not in (pool / "config.xml").read_text()


# Permissions


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("0755", 0o755),
        ("755", 0o755),
        ("0", 0),
        ("0000", 0),
        ("00000700", 0o700),
        (" 0711\n", 0o711),
        ("01777", 0o1777),
        ("7777", 0o7777),
    ],
)
def test_a_mode_is_octal(tree: ControlTree, text: str, mode: int) -> None:
    pool = tree.defined_pool(with_permissions(f"<mode>{text}</mode>"))
    assert stat.S_IMODE((pool / "items").stat().st_mode) == mode
    assert element(pool, "target/permissions/mode") == f"{mode:04o}"


@pytest.mark.parametrize("text", ["0888", "rwxr-xr-x", "0x1ff", "-1", "10000", "", "0o755", "7 5 5"])
def test_a_mode_that_is_none_is_refused(tree: ControlTree, text: str) -> None:
    with refused(errno.EINVAL):
        tree.defined_pool(with_permissions(f"<mode>{text}</mode>"))
    assert "<mode>" in last_error(tree.mount)


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("107", 107), ("4294967294", 2**32 - 2), ("-1", 0)])
@pytest.mark.parametrize("kind", ["owner", "group"])
def test_an_owner_is_decimal_and_minus_one_leaves_it_to_the_default(
    tree: ControlTree, kind: str, text: str, expected: int
) -> None:
    pool = tree.defined_pool(with_permissions(f"<{kind}>{text}</{kind}>"))
    info = (pool / "items").stat()
    assert (info.st_uid if kind == "owner" else info.st_gid) == expected
    assert element(pool, f"target/permissions/{kind}") == (None if text == "-1" else text)


@pytest.mark.parametrize("text", ["-2", "root", "4294967295", "0x10", "", "1.0"])
@pytest.mark.parametrize("kind", ["owner", "group"])
def test_an_owner_that_is_none_is_refused(tree: ControlTree, kind: str, text: str) -> None:
    with refused(errno.EINVAL):
        tree.defined_pool(with_permissions(f"<{kind}>{text}</{kind}>"))
    assert f"<{kind}>" in last_error(tree.mount)


@pytest.mark.parametrize("where", ["target", "beside the target"])
def test_the_permissions_of_an_item_are_those_of_its_directory(tree: ControlTree, where: str) -> None:
    pool = tree.active_pool()
    permissions = "<permissions><mode>02751</mode><owner>107</owner><group>108</group></permissions>"
    inner = f"<target>{permissions}</target>" if where == "target" else permissions
    request(tree.define, f"<fs><name>i</name><source fspool='{pool.name}'/>{inner}</fs>")
    for path in (pool / "items" / "i", pool / "items" / "i" / "data"):
        info = path.stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o2751, 107, 108)


# Names


@pytest.mark.parametrize(
    "name",
    [
        "default",
        "guest_images-1.2",
        "with space",
        "Bücher und 本",
        "a" * 200,
        "ä" * 100,
        "x&amp;y&lt;z&gt;'\"",
        "a:b@c,d;e%f+g=h",
        "a\\b",
        "$(reboot) `x` *",
    ],
)
def test_a_name_may_hold_what_a_file_name_may(tree: ControlTree, name: str) -> None:
    request(tree.define, f"<fspool type='dir'><name>{name}</name></fspool>")
    plain = name.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    pool = tree.pools / plain
    request(pool / "status", "start build")
    item = tree.new_item(pool, plain)
    assert ElementTree.parse(item / "config.xml").getroot().findtext("name") == plain
    (item / "data" / "file").touch()
    item.rmdir()
    assert os.listdir(pool / "trash") == [plain]
    request(pool / "status", "stop")
    pool.rmdir()


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "/a", "..", ".", ".hidden", "-rf", "a\nb", "a\tb", "a&#x7f;b", "a&#x2028;b", "a" * 201],
)
def test_a_name_that_is_none_is_refused(tree: ControlTree, name: str) -> None:
    before = os.listdir(tree.pools)
    with refused(errno.EINVAL):
        request(tree.define, f"<fspool type='dir'><name>{name}</name></fspool>")
    assert "name" in last_error(tree.mount)
    assert os.listdir(tree.pools) == before


# uuids


@pytest.mark.parametrize(
    "text",
    [
        "c7a5fdbd-cdaf-9455-926a-d65c16db1809",
        "C7A5FDBD-CDAF-9455-926A-D65C16DB1809",
        "c7a5fdbdcdaf9455926ad65c16db1809",
        " C7A5FDBDcdaf9455926ad65c16db1809\n",
    ],
)
def test_a_uuid_may_be_written_with_and_without_dashes(tree: ControlTree, text: str) -> None:
    pool = tree.defined_pool(f"<uuid>{text}</uuid>")
    assert value(pool / "uuid") == "c7a5fdbd-cdaf-9455-926a-d65c16db1809"
    pool.rmdir()


@pytest.mark.parametrize(
    "text",
    ["", "c7a5fdbd", "g7a5fdbdcdaf9455926ad65c16db1809", "c7a5fdbd-cdaf-9455-926a-d65c16db18090", "{uuid}"],
)
def test_a_uuid_that_is_none_is_refused(tree: ControlTree, text: str) -> None:
    with refused(errno.EINVAL):
        tree.defined_pool(f"<uuid>{text}</uuid>")
    assert "<uuid>" in last_error(tree.mount)


def test_a_uuid_that_is_left_out_is_made_and_stays(tree: ControlTree) -> None:
    pool = tree.defined_pool()
    uuid = value(pool / "uuid")
    request(tree.define, f"<fspool type='dir'><name>{pool.name}</name></fspool>")
    assert value(pool / "uuid") == uuid


# Paths


def test_duplicate_and_trailing_slashes_of_a_path_mean_nothing(tree: ControlTree) -> None:
    base = tree.daemon.storage / "slashes"
    pool = tree.defined_pool(f"<target><path>//{str(base).replace('/', '///')}//pool///</path></target>")
    assert element(pool, "target/path") == f"{base}/pool"
    assert os.readlink(pool / "root") == f"{base}/pool"
    request(pool / "status", "start build")
    item = f"<fs><name>i</name><source fspool='{pool.name}'/><target><path>//a///b//</path></target></fs>"
    request(tree.define, item)
    assert os.readlink(pool / "items" / "i" / "data") == f"{base}/pool/a/b"


@pytest.mark.parametrize(
    "path", ["", "relative/path", "/", "///", "/a/../b", "/a/./b", "/a/..", "/a\nb", f"/{'a' * 256}"]
)
def test_a_target_that_is_no_absolute_path_is_refused(tree: ControlTree, path: str) -> None:
    with refused(errno.EINVAL):
        tree.defined_pool(f"<target><path>{path}</path></target>")
    assert "path" in last_error(tree.mount)


@pytest.mark.parametrize("path", ["", "relative", "/", "/..", "/../../etc", "/a/../../etc", "/.fspool/items"])
def test_a_path_of_an_item_that_leads_out_of_its_pool_is_refused(
    tree: ControlTree, some_pool: Path, path: str
) -> None:
    with refused(errno.EINVAL):
        target = f"<target><path>{path}</path></target>"
        request(tree.define, f"<fs><name>out</name><source fspool='{some_pool.name}'/>{target}</fs>")
    assert "path" in last_error(some_pool) + last_error(tree.mount)
    assert not (some_pool / "items" / "out").exists()


# The rest


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ("<fspool type='dir'>\n<name>{name}</name>\n<colour/>\n</fspool>", 3),
        ("<fspool type='dir' colour='red'>\n<name>{name}</name>\n</fspool>", 1),
        ("<fspool type='dir'>\n<name>{name}</name>\n<name>{name}</name>\n</fspool>", 3),
        ("<fspool type='dir'>\n<name>{name}</name>\n\nstray text\n</fspool>", 1),
        ("<fspool type='disk'>\n<name>{name}</name>\n</fspool>", 1),
        ("<fspool>\n<name>{name}</name>\n</fspool>", 1),
        ("<pool type='dir'>\n<name>{name}</name>\n</pool>", 1),
        ("<fspool type='dir'>\n</fspool>", 1),
        ("<fspool type='volume'>\n<name>{name}</name>\n</fspool>", 1),
    ],
)
def test_what_no_pool_has_is_refused_with_its_line(tree: ControlTree, document: str, line: int) -> None:
    name = tree.new_name()
    with refused(errno.EINVAL):
        request(tree.define, document.format(name=name))
    assert last_error(tree.mount).startswith(f"line {line}: ")
    assert not (tree.pools / name).exists()


def test_metadata_is_kept_as_it_was_written(tree: ControlTree) -> None:
    metadata = (
        "<metadata>\n    <app:note xmlns:app='http://example.com/app' app:level=\"1\">"
        "<!-- why -->a &amp; b</app:note>\n  </metadata>"
    )
    pool = tree.active_pool(metadata)
    item = f"<fs><name>i</name><source fspool='{pool.name}'/>{metadata}</fs>"
    request(tree.define, item)
    for file in (pool / "config.xml", pool / "items" / "i" / "config.xml"):
        found = ElementTree.parse(file).getroot().find("metadata")
        assert found is not None
        note = found.find("{http://example.com/app}note")
        assert note is not None
        assert (note.get("{http://example.com/app}level"), note.text) == ("1", "a & b")
        assert "<!-- why -->" in file.read_text()


def test_order_and_comments_mean_nothing(tree: ControlTree) -> None:
    name = tree.new_name()
    request(
        tree.define,
        f"<?xml version='1.0' encoding='UTF-8'?>\n<!-- a pool -->\n<fspool type='dir'>"
        f"<trash retention='7d'/><target/><!-- the name is last --><name>{name}</name></fspool>",
    )
    assert "<trash retention='7d'/>" in (tree.pools / name / "config.xml").read_text()
