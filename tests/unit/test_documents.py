"""Documents that are accepted, and the definitions that they become."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from fspoolfs.errors import DocumentError
from fspoolfs.model import documents
from fspoolfs.model.definitions import (
    Auth,
    Host,
    ItemDefinition,
    ItemOrigin,
    Permissions,
    PoolDefaults,
    PoolDefinition,
    PoolSource,
    PoolType,
    Quota,
    SoftLimit,
    TrashPolicy,
)
from fspoolfs.model.limits import LIMITS

DOCUMENTS = Path(__file__).parent / "documents"
ALL = sorted(path.name for path in DOCUMENTS.glob("*.xml"))
OPEN = Permissions(mode=0o777, owner=0, group=0)


def read(name: str) -> bytes:
    return (DOCUMENTS / name).read_bytes()


def dir_pool(inner: str) -> PoolDefinition:
    return documents.parse_pool(f"<fspool type='dir'><name>p</name>{inner}</fspool>".encode())


def network_pool(source: str) -> PoolSource:
    document = f"<fspool type='network'><name>p</name><source>{source}</source></fspool>"
    return documents.parse_pool(document.encode()).source


def volume_pool(source: str) -> PoolSource:
    document = f"<fspool type='volume'><name>p</name><source>{source}</source></fspool>"
    return documents.parse_pool(document.encode()).source


def item(inner: str) -> ItemDefinition:
    return documents.parse_item(f"<fs><name>i</name>{inner}</fs>".encode())


# The documents of the proposal


def test_the_proposed_volume_pool_is_accepted() -> None:
    assert documents.parse(read("rfc-volume.xml")) == PoolDefinition(
        name="fspool",
        type=PoolType.VOLUME,
        uuid=UUID("cb07b799-8e03-485c-aaa0-7c88f60b37b0"),
        source=PoolSource(pool="pool name", volume="volume name", format="ext4"),
        target="/path/to/fspool",
        permissions=OPEN,
    )


def test_the_proposed_dir_pool_is_accepted() -> None:
    assert documents.parse(read("rfc-dir.xml")) == PoolDefinition(
        name="fspool",
        type=PoolType.DIR,
        uuid=UUID("cb07b799-8e03-485c-aaa0-7c88f60b37b0"),
        target="/path/to/fspool/root",
        permissions=OPEN,
    )


def test_the_proposed_network_pool_is_accepted_with_the_remark_in_its_source() -> None:
    assert documents.parse(read("rfc-network.xml")) == PoolDefinition(
        name="fspool",
        type=PoolType.NETWORK,
        uuid=UUID("b27a72b5-a92e-4e58-a172-a80ba73b30fe"),
        source=PoolSource(hosts=(Host(name="X.X.X.X"),), directory="some/directory/exposed/to/our/host"),
        target="/fspool",
    )


def test_the_proposed_item_is_accepted() -> None:
    assert documents.parse(read("rfc-item.xml")) == ItemDefinition(
        name="item", pool="name", path="/fspool", permissions=OPEN
    )


@pytest.mark.parametrize("root", ["fs", "item", "fsitem"])
def test_an_item_has_three_names_for_its_root(root: str) -> None:
    document = f"<{root}><name>i</name></{root}>".encode()
    assert documents.parse(document) == documents.parse_item(document) == ItemDefinition(name="i")


def test_the_examples_of_the_readme_are_accepted() -> None:
    text = (DOCUMENTS.parents[2] / "README.md").read_text()
    examples = re.findall(r"^```xml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    files = Auth(
        type="sshfs",
        username="root",
        secret="/etc/fspoolfs/keys/remote",
        hosts="/etc/fspoolfs/known_hosts",
    )
    assert [documents.parse(example.encode()) for example in examples] == [
        PoolDefinition(
            name="remote",
            type=PoolType.NETWORK,
            source=PoolSource(
                hosts=(Host(name="10.0.0.7"),), directory="/exports/fs", format="sshfs", auth=files
            ),
        ),
        ItemDefinition(
            name="web", pool="tank", capacity=20 * 2**30, soft=SoftLimit(percent=80), files=100_000
        ),
        ItemDefinition(name="web", limits=(("io.max", "rbps=10485760 wiops=120"), ("memory.max", "512M"))),
        PoolDefinition(
            name="shared", type=PoolType.DIR, quotas=(Quota(user=1000, size=50 * 2**30, items=20),)
        ),
    ]


def test_the_examples_of_users_are_accepted() -> None:
    text = (DOCUMENTS.parents[2] / "docs" / "users.md").read_text()
    pool, item = re.findall(r"^```xml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(documents.parse_pool(pool.encode()).quotas) == 3
    assert documents.parse_item(item.encode()).idmap is not None


def test_the_example_of_network_pools_is_accepted() -> None:
    text = (DOCUMENTS.parents[2] / "docs" / "network.md").read_text()
    (example,) = re.findall(r"^```xml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert documents.parse_pool(example.encode()).source.options == "compression=yes"


# The order of elements, and what stands between them


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
def test_elements_stand_in_any_order(name: str, data: st.DataObject) -> None:
    root = etree.fromstring(read(name))
    for element in root.iter("fs", "fspool", "source", "target", "permissions"):
        # Hosts stay in their order, which is theirs to choose.
        if element.find("host") is None:
            element[:] = data.draw(st.permutations(list(element)))
    assert documents.parse(etree.tostring(root)) == documents.parse(read(name))


@pytest.mark.parametrize("name", ALL)
def test_comments_and_instructions_mean_nothing_outside_metadata(name: str) -> None:
    root = etree.fromstring(read(name))
    kept = set(root.iterdescendants("metadata")) | {
        inner for metadata in root.iterdescendants("metadata") for inner in metadata.iterdescendants()
    }
    for element in [*root.iter("*")]:
        if element not in kept:
            element.append(etree.Comment(" <name>not this one</name> "))
            element.insert(0, etree.ProcessingInstruction("app", "and not that"))
            element[0].tail, element.text = element.text, None
    dressed = b"<?app first?><!-- first -->" + etree.tostring(root) + b"<!-- last --><?app last?>\n"
    assert documents.parse(dressed) == documents.parse(read(name))


def test_text_may_be_split_by_comments_and_sections() -> None:
    document = b"<fs><name>we<!-- - -->b<![CDATA[ & ]]>mail</name></fs>"
    assert documents.parse_item(document).name == "web & mail"


@pytest.mark.parametrize("name", [" ", " a", "a ", "a  b", "ä&<'\">日"])
def test_a_name_is_taken_with_its_spaces(name: str) -> None:
    root = etree.Element("fs")
    etree.SubElement(root, "name").text = name
    assert documents.parse_item(etree.tostring(root)).name == name


# Values


@pytest.mark.parametrize(
    ("text", "capacity"),
    [
        ("<capacity>5</capacity>", 5),
        ("<capacity unit='bytes'>5</capacity>", 5),
        ("<capacity unit='KiB'>5</capacity>", 5 * 1024),
        ("<capacity unit='KB'>5</capacity>", 5000),
        ("<capacity unit='k'>5</capacity>", 5 * 1024),
        ("<capacity unit='GiB'>10</capacity>", 10 * 2**30),
        ("<capacity unit='e'>7</capacity>", 7 * 2**60),
        ("<capacity>\n 9223372036854775807 \n</capacity>", 2**63 - 1),
        ("<capacity>0</capacity>", None),
        ("<capacity unit='TiB'>0</capacity>", None),
        ("", None),
    ],
)
def test_a_capacity_is_bytes_and_zero_is_not_said(text: str, capacity: int | None) -> None:
    assert item(text).capacity == capacity
    assert dir_pool(text).capacity == capacity
    assert dir_pool(f"<defaults>{text}</defaults>").defaults == PoolDefaults(capacity=capacity)


@pytest.mark.parametrize(
    ("text", "soft"),
    [
        ("<capacity unit='GiB' soft='80%'>5</capacity>", SoftLimit(percent=80)),
        ("<capacity soft=' 1% '>5</capacity>", SoftLimit(percent=1)),
        ("<capacity soft='0100%'>5</capacity>", SoftLimit(percent=100)),
        ("<capacity soft='4GiB'>9223372036854775807</capacity>", SoftLimit(size=4 * 2**30)),
        ("<capacity soft='4 GB'>0</capacity>", SoftLimit(size=4 * 10**9)),
        ("<capacity soft='0012'>0</capacity>", SoftLimit(size=12)),
        ("<capacity>5</capacity>", None),
    ],
)
def test_a_soft_limit_is_a_part_of_the_capacity_or_a_size(text: str, soft: SoftLimit | None) -> None:
    assert item(text).soft == soft
    assert dir_pool(f"<defaults>{text}</defaults>").defaults.soft == soft


@pytest.mark.parametrize(
    ("soft", "capacity", "expected"),
    [
        (SoftLimit(percent=80), 1000, 800),
        (SoftLimit(percent=50), 3, 2),
        (SoftLimit(percent=80), None, None),
        (SoftLimit(size=7), None, 7),
        (SoftLimit(size=7), 5, 7),
    ],
)
def test_a_soft_limit_is_counted_in_bytes(
    soft: SoftLimit, capacity: int | None, expected: int | None
) -> None:
    assert ItemDefinition(name="i", capacity=capacity, soft=soft).soft_bytes == expected


@pytest.mark.parametrize(("text", "files"), [("1", 1), (" 007\n", 7), ("9223372036854775807", 2**63 - 1)])
def test_a_number_of_files_is_a_whole_number(text: str, files: int) -> None:
    assert item(f"<files>{text}</files>").files == files
    assert dir_pool(f"<defaults><files>{text}</files></defaults>").defaults == PoolDefaults(files=files)


@pytest.mark.parametrize("name", ["allocation", "available"])
@pytest.mark.parametrize("report", ["<{}/>", "<{} unit='bytes'>5</{}>", "<{} unit='?'>not measured</{}>"])
def test_what_only_reports_is_ignored(name: str, report: str) -> None:
    element = report.format(name, name)
    assert item(element) == item("")
    assert dir_pool(element) == dir_pool("")


@pytest.mark.parametrize(
    "text",
    [
        "6f1d3a0e-52a7-4c1b-9c5e-0d9b1f2a3c4d",
        "6F1D3A0E-52A7-4C1B-9C5E-0D9B1F2A3C4D",
        "6f1d3a0e52a74c1b9c5e0d9b1f2a3c4d",
        "\n  6f1d3A0e52a74c1B9c5e0d9b1f2a3C4D\n",
    ],
)
def test_a_uuid_has_dashes_or_none_and_either_case(text: str) -> None:
    assert item(f"<uuid>{text}</uuid>").uuid == UUID("6f1d3a0e-52a7-4c1b-9c5e-0d9b1f2a3c4d")


@pytest.mark.parametrize(
    ("text", "mode"),
    [("0", 0), ("755", 0o755), ("0755", 0o755), ("01777", 0o1777), ("7777", 0o7777), (" 0711\n", 0o711)],
)
def test_a_mode_is_octal(text: str, mode: int) -> None:
    assert item(f"<permissions><mode>{text}</mode></permissions>").permissions == Permissions(mode=mode)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("107", 107), ("4294967294", 2**32 - 2), (" 5 ", 5), ("-1", None), ("007", 7)],
)
def test_an_owner_is_decimal_and_minus_one_is_not_said(text: str, number: int | None) -> None:
    inner = f"<permissions><owner>{text}</owner><group>{text}</group></permissions>"
    assert item(inner).permissions == Permissions(owner=number, group=number)


@pytest.mark.parametrize("name", ["full-item.xml", "full-volume.xml"])
def test_permissions_stand_inside_the_target_or_beside_it(name: str) -> None:
    root = etree.fromstring(read(name))
    target, permissions = root.find("target"), root.find(".//permissions")
    assert target is not None
    assert permissions is not None
    other = root if permissions.getparent() is target else target
    other.append(permissions)
    assert documents.parse(etree.tostring(root)) == documents.parse(read(name))


def test_permissions_need_no_target() -> None:
    assert dir_pool("<permissions><mode>0700</mode></permissions>").permissions == Permissions(mode=0o700)
    assert dir_pool("<target><permissions/></target>") == dir_pool("")


@pytest.mark.parametrize("path", ["/srv/tank", "//srv///tank", "/srv/tank/", "//srv//tank//"])
def test_duplicate_slashes_are_squeezed(path: str) -> None:
    target = f"<target><path>{path}</path></target>"
    assert dir_pool(target).target == "/srv/tank"
    assert item(target).path == "/srv/tank"
    assert network_pool(f"<dir path='{path}'/>").directory == "/srv/tank"
    assert volume_pool(f"<device path='{path}'/>").device == "/srv/tank"


@pytest.mark.parametrize(("text", "seconds"), [("none", 0), ("24h", 86_400), ("90", 90), (" 7 d ", 604_800)])
def test_the_retention_of_the_trash_is_a_duration(text: str, seconds: int) -> None:
    assert dir_pool(f"<trash retention='{text}'/>").trash == TrashPolicy(retention=seconds)


# Sources


@pytest.mark.parametrize(
    "source", ["", "<source/>", "<source></source>", "<source>\n  <!-- none -->\n</source>"]
)
def test_a_dir_pool_has_no_source_or_an_empty_one(source: str) -> None:
    assert dir_pool(source).source == PoolSource()


def test_a_volume_is_one_of_a_pool_or_a_device() -> None:
    assert volume_pool("<volume name='v'/><pool provider='lvm' name='vg0'/>") == PoolSource(
        pool="vg0", provider="lvm", volume="v"
    )
    assert volume_pool("<device path='/dev/sdb1'/>") == PoolSource(device="/dev/sdb1")


def test_a_network_source_has_several_hosts_in_their_order() -> None:
    source = network_pool(
        "<host name='b' port='24007'/><dir path='/'/><host name='a'/><host name='b' port='1'/>"
    )
    hosts = (Host(name="b", port=24007), Host(name="a"), Host(name="b", port=1))
    assert source == PoolSource(hosts=hosts, directory="/")


@pytest.mark.parametrize("name", ["10.0.0.7", "fs.example.org", "::1", "[fe80::1%eth0]", "backup@nas_2", "A"])
def test_a_host_is_a_name_or_an_address_with_or_without_a_user(name: str) -> None:
    assert network_pool(f"<host name='{name}'/>").hosts == (Host(name=name),)


def test_a_network_source_may_be_hosts_alone_or_a_directory_alone() -> None:
    assert network_pool("<host name='h'/>") == PoolSource(hosts=(Host(name="h"),))
    assert network_pool("<dir path='exports/fs'/>") == PoolSource(directory="exports/fs")


def test_mount_options_are_one_line_without_the_space_around_it() -> None:
    assert network_pool("<host name='h'/><options>\n  ro, x=a b\n</options>").options == "ro, x=a b"


@pytest.mark.parametrize(
    "source", ["fspool='tank'", ' fspool = "tank" ', "\n  fspool\n=\n'tank'\n", "fs<!-- -->pool='tank'"]
)
def test_the_pool_of_an_item_may_stand_in_the_text_of_its_source(source: str) -> None:
    assert item(f"<source>{source}</source>").pool == "tank"


def test_the_source_of_an_item_names_its_pool_and_what_it_is_a_clone_of() -> None:
    base = ItemOrigin(fs="base")
    assert (item("").pool, item("").origin) == (None, None)
    assert item("<source/>") == item("")
    assert item("<source fspool='t'/>") == ItemDefinition(name="i", pool="t")
    assert item("<source fs='base'/>") == ItemDefinition(name="i", origin=base)
    assert item("<source snapshot='v1' fs='base' fspool='t'/>") == ItemDefinition(
        name="i", pool="t", origin=ItemOrigin(fs="base", snapshot="v1")
    )


# Limits


@pytest.mark.parametrize("text", ["", " Limits", "<!-- none -->", "\n  none yet\n"])
def test_text_in_cgroups_limits_nothing(text: str) -> None:
    assert item(f"<permissions><cgroups>{text}</cgroups></permissions>").limits == ()


def test_limits_keep_their_order_and_lose_needless_space() -> None:
    inner = "<pids.max>\n 64 </pids.max> <io.max>rbps=1\n\twiops=2</io.max>"
    limits = item(f"<permissions><cgroups>{inner}</cgroups></permissions>").limits
    assert limits == (("pids.max", "64"), ("io.max", "rbps=1 wiops=2"))


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_is_an_element_of_its_own(name: str) -> None:
    value = {"io.max": "rbps=max", "io.weight": "100", "io.latency": "target=9"}.get(name, "max")
    limits = item(f"<permissions><cgroups><{name}>{value}</{name}></cgroups></permissions>").limits
    assert limits == ((name, value),)


# Metadata


@pytest.mark.parametrize(
    "metadata",
    [
        "<metadata/>",
        "<metadata>text &amp; &lt;more&gt; ]]&gt;</metadata>",
        '<metadata version="1"><name>not ours</name><name/></metadata>',
        '<metadata xmlns:a="urn:a"><a:x a:y="&quot;\'&#10;">\n  <z xmlns="urn:z"/>&#13;</a:x></metadata>',
        "<metadata><!-- kept --><?app kept?>ä日🐧\u0085\u2028</metadata>",
        '<metadata><i:include xmlns:i="http://www.w3.org/2001/XInclude" href="/etc/passwd"/></metadata>',
    ],
)
def test_canonical_metadata_is_kept_byte_for_byte(metadata: str) -> None:
    assert item(metadata).metadata == metadata
    assert dir_pool(metadata).metadata == metadata


def test_metadata_takes_the_namespaces_along_that_it_stands_in() -> None:
    document = b"<fs xmlns:a='urn:a'><name>i</name><metadata  x='1'><a:b></a:b></metadata></fs>"
    metadata = documents.parse_item(document).metadata
    assert metadata == '<metadata xmlns:a="urn:a" x="1"><a:b/></metadata>'
    assert item(metadata).metadata == metadata


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_byte_order_mark_tells_the_encoding(encoding: str) -> None:
    assert documents.parse_item("<fs><name>日</name></fs>".encode(encoding)).name == "日"


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16", "ISO-8859-1", "US-ASCII"])
def test_the_declaration_tells_the_encoding(encoding: str) -> None:
    name = "e" if encoding == "US-ASCII" else "é"
    document = f"<?xml version='1.0' encoding='{encoding}'?><fs><name>{name}</name></fs>"
    assert documents.parse_item(document.encode(encoding)).name == name


def test_a_document_of_exactly_one_mebibyte_is_accepted() -> None:
    document = b"<fs><name>i</name></fs>"
    padding = b" " * (documents.MAX_DOCUMENT - len(document))
    assert documents.parse_item(document + padding) == ItemDefinition(name="i")


def test_many_threads_may_parse_at_once() -> None:
    whole = [read(name) for name in ALL] * 20
    faulty = [document.replace(b"<name>", b"<name>/", 1) for document in whole]

    def sentence(document: bytes) -> str:
        with pytest.raises(DocumentError) as refused:
            documents.parse(document)
        return refused.value.sentence

    with ThreadPoolExecutor(8) as threads:
        definitions = threads.map(documents.parse, whole)
        sentences = threads.map(sentence, faulty)
        assert list(definitions) == [documents.parse(document) for document in whole]
        assert list(sentences) == [sentence(document) for document in faulty]


# The kind of document


def test_a_document_of_the_other_kind_is_refused() -> None:
    with pytest.raises(
        DocumentError, match="line 1: unexpected element <fs>; an <fspool> document belongs here"
    ):
        documents.parse_pool(read("full-item.xml"))
    with pytest.raises(
        DocumentError, match="line 1: unexpected element <fspool>; an <fs> document belongs here"
    ):
        documents.parse_item(read("full-dir.xml"))


@pytest.mark.parametrize(
    "root", ["<pool/>", "<FSPOOL type='dir'/>", "<fs xmlns='urn:x'/>", "<x:fs xmlns:x='urn:x'/>"]
)
def test_any_other_root_is_refused(root: str) -> None:
    with pytest.raises(DocumentError, match="line 2: unexpected element"):
        documents.parse(f"<!-- -->\n{root}".encode())
