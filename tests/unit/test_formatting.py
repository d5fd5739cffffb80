"""Canonical documents: exactly these bytes, which every validator accepts and parsing undoes."""

from __future__ import annotations

import subprocess
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from fspoolfs import names, units
from fspoolfs.model import documents, formatting, values
from fspoolfs.model.definitions import (
    Host,
    IdMap,
    IdRange,
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
from fspoolfs.model.limits import LIMITS, RATES

DOCUMENTS = Path(__file__).parent / "documents"
Definition = TypeVar("Definition")
SCHEMA = etree.RelaxNG(
    etree.fromstring(resources.files("fspoolfs.model").joinpath("fspool.rng").read_bytes())
)
CANONICAL = sorted(DOCUMENTS.glob("full-*.xml"))

# The first draw reads the tables of Unicode, which takes long on a busy machine and says nothing.
patient = settings(suppress_health_check=[HealthCheck.too_slow])

# Definitions


def fits(text: str, limit: int) -> bool:
    return len(text.encode()) <= limit


# Characters that need care in XML are drawn as often as all others together.
characters = st.sampled_from("<>&'\" ;]é") | st.characters(
    exclude_categories=["Cc", "Cs"], exclude_characters="/\u2028\u2029\ufffe\uffff"
)
item_names = st.text(characters, min_size=1, max_size=200).filter(
    lambda name: name[0] not in ".-" and fits(name, names.MAX_NAME)
)
components = st.text(characters, min_size=1, max_size=255).filter(
    lambda part: part not in {".", ".."} and fits(part, names.MAX_COMPONENT)
)
relative_paths = (
    st.lists(components, min_size=1, max_size=5)
    .map("/".join)
    .filter(lambda path: fits(path, names.MAX_PATH - 1))
)
paths = relative_paths.map(lambda path: f"/{path}")
item_paths = paths.filter(lambda path: path.split("/")[1] != names.RESERVED)
capacities = st.none() | st.integers(1, units.MAX_SIZE)
numbers_of_files = st.none() | st.integers(1, values.MAX_FILES)
soft_sizes = st.none() | st.builds(SoftLimit, size=st.integers(1, units.MAX_SIZE))
soft_limits = soft_sizes | st.builds(SoftLimit, percent=st.integers(1, 100))
owners = st.none() | st.integers(0, values.MAX_ID)
permissions = st.builds(Permissions, mode=st.none() | st.integers(0, 0o7777), owner=owners, group=owners)
words = st.from_regex(r"[a-z0-9][a-z0-9+._-]{0,63}", fullmatch=True)
lines = st.text(characters, min_size=1).map(lambda text: text.strip(" ")).filter(bool)
hosts = st.builds(
    Host,
    name=st.from_regex(r"[A-Za-z0-9_:\[][A-Za-z0-9_.:%@\[\]-]{0,254}", fullmatch=True),
    port=st.none() | st.integers(1, 65535),
)
counts_or_max = st.just("max") | st.integers(1000, 1_000_000).map(str)
rates = st.dictionaries(st.sampled_from(RATES), counts_or_max, min_size=1)
#: What each file of a control group takes.
limit_values = {
    "io.max": rates.map(lambda found: " ".join(f"{key}={value}" for key, value in found.items())),
    "io.weight": st.integers(1, 10_000).map(str),
    "io.latency": st.integers(1, 1_000_000).map("target={}".format),
    "memory.max": counts_or_max | st.integers(0, 999).map("{}G".format),
    "memory.high": counts_or_max,
    "pids.max": counts_or_max,
    "cpu.max": counts_or_max | st.tuples(counts_or_max, st.integers(1000, 100_000).map(str)).map(" ".join),
}
limits = st.lists(
    st.sampled_from(LIMITS).flatmap(lambda name: st.tuples(st.just(name), limit_values[name])),
    unique_by=lambda limit: limit[0],
).map(tuple)


@st.composite
def metadata(draw: st.DrawFn) -> str:
    """A <metadata> element as it is kept: with attributes, namespaces, comments, in canonical form."""
    text = st.text(characters | st.sampled_from("\t\n\r/"), max_size=20)
    tags = st.sampled_from(["name", "{urn:a}x", "{urn:b}y", "{http://example.org/}z"])
    root = etree.Element("metadata")
    spots = [root]
    for _ in range(draw(st.integers(0, 6))):
        parent = draw(st.sampled_from(spots))
        child = etree.SubElement(parent, draw(tags))
        child.text, child.tail = draw(text) or None, draw(text) or None
        for name in draw(st.sets(tags, max_size=2)):
            child.set(name, draw(text))
        if draw(st.booleans()):
            child.append(etree.Comment("kept"))
        spots.append(child)
    return etree.tostring(root, encoding="unicode")


sources = {
    PoolType.DIR: st.just(PoolSource()),
    PoolType.VOLUME: st.builds(
        PoolSource,
        pool=item_names,
        provider=st.none() | words,
        volume=item_names,
        format=st.none() | words,
        options=st.none() | lines,
    )
    | st.builds(PoolSource, device=paths, format=st.none() | words, options=st.none() | lines),
    PoolType.NETWORK: st.builds(
        PoolSource,
        hosts=st.lists(hosts, max_size=4).map(tuple),
        directory=st.none() | paths | st.just("/") | relative_paths.filter(lambda path: path[0] != "-"),
        format=st.none() | words,
        options=st.none() | lines,
    ).filter(lambda source: bool(source.hosts or source.directory)),
}


def with_sizes(kind: type[Definition], **others: st.SearchStrategy[Any]) -> st.SearchStrategy[Definition]:
    """Definitions of how much an item may hold: a part of a capacity needs one."""
    limited = st.builds(
        kind, capacity=st.integers(1, units.MAX_SIZE), soft=soft_limits, files=numbers_of_files, **others
    )
    return limited | st.builds(kind, soft=soft_sizes, files=numbers_of_files, **others)


ids = st.integers(0, 2**32 - 2)


@st.composite
def quotas(draw: st.DrawFn) -> tuple[Quota, ...]:
    """In the order in which they are read: the pool's, those of users, those of groups."""
    of_pool = [(None, None)] if draw(st.booleans()) else []
    of_users = [(user, None) for user in sorted(draw(st.sets(ids, max_size=3)))]
    of_groups = [(None, group) for group in sorted(draw(st.sets(ids, max_size=3)))]
    found = []
    for user, group in (*of_pool, *of_users, *of_groups):
        size = draw(st.none() | st.integers(1, units.MAX_SIZE))
        count = draw(numbers_of_files if size is not None else st.integers(1, 10**18))
        found.append(Quota(user=user, group=group, size=size, items=count))
    return tuple(found)


@st.composite
def pools(draw: st.DrawFn) -> PoolDefinition:
    kind = draw(st.sampled_from(PoolType))
    return PoolDefinition(
        name=draw(item_names),
        type=kind,
        uuid=draw(st.none() | st.uuids()),
        capacity=draw(capacities),
        source=draw(sources[kind]),
        target=draw(st.none() | paths),
        permissions=draw(permissions),
        defaults=draw(with_sizes(PoolDefaults)),
        quotas=draw(quotas()),
        trash=TrashPolicy(retention=draw(st.integers(0, units.MAX_DURATION))),
        metadata=draw(st.none() | metadata()),
    )


@st.composite
def ranges(draw: st.DrawFn) -> tuple[IdRange, ...]:
    """In order, and none overlaps another one."""
    count = draw(st.integers(1, 1000))
    numbers = sorted(draw(st.sets(st.integers(0, 4_000_000), min_size=1, max_size=4)))
    return tuple(IdRange(number * 1000, (4_000_000 - number) * 1000, count) for number in numbers)


items = with_sizes(
    ItemDefinition,
    name=item_names,
    uuid=st.none() | st.uuids(),
    pool=st.none() | item_names,
    path=st.none() | item_paths,
    permissions=permissions,
    limits=limits,
    idmap=st.none() | st.builds(IdMap, users=ranges(), groups=ranges()),
    origin=st.none() | st.builds(ItemOrigin, fs=item_names, snapshot=st.none() | item_names),
    metadata=st.none() | metadata(),
)


def printed(definition: PoolDefinition | ItemDefinition) -> bytes:
    if isinstance(definition, PoolDefinition):
        return formatting.format_pool(definition)
    return formatting.format_item(definition)


# Round trips


@pytest.mark.parametrize("path", CANONICAL, ids=lambda path: path.stem)
def test_a_canonical_document_is_printed_as_it_stands(path: Path) -> None:
    assert printed(documents.parse(path.read_bytes())) == path.read_bytes()


@patient
@given(pools() | items)
def test_parsing_undoes_printing(definition: PoolDefinition | ItemDefinition) -> None:
    assert documents.parse(printed(definition)) == definition


@patient
@given(pools() | items)
def test_what_is_printed_follows_the_schema(definition: PoolDefinition | ItemDefinition) -> None:
    # Parsing does not ask the schema about what it would print the same, so this test has to.
    SCHEMA.assertValid(etree.fromstring(printed(definition)))


@pytest.mark.program("xmllint")
@settings(patient, max_examples=15)
@given(st.lists(pools() | items, min_size=1, max_size=20))
def test_xmllint_accepts_what_is_printed(definitions: list[PoolDefinition | ItemDefinition]) -> None:
    with (
        TemporaryDirectory() as folder,
        resources.as_file(resources.files("fspoolfs.model").joinpath("fspool.rng")) as schema,
    ):
        files = [Path(folder, f"{number}.xml") for number in range(len(definitions))]
        for file, definition in zip(files, definitions, strict=True):
            file.write_bytes(printed(definition))
        verdict = subprocess.run(
            ["xmllint", "--noout", "--relaxng", str(schema), *map(str, files)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert verdict.returncode == 0, verdict.stderr
    assert verdict.stderr.count(" validates") == len(files)


@patient
@given(items, st.integers(0, 2**63))
def test_a_reported_allocation_is_not_read_back(definition: ItemDefinition, allocation: int) -> None:
    document = formatting.format_item(definition, allocation=allocation)
    assert f"  <allocation unit='bytes'>{allocation}</allocation>\n".encode() in document
    assert documents.parse_item(document) == definition


@patient
@given(metadata())
def test_metadata_is_printed_byte_for_byte(text: str) -> None:
    definition = ItemDefinition(name="i", metadata=text)
    assert f"  {text}\n</fs>\n".encode() in formatting.format_item(definition)
    assert documents.parse_item(formatting.format_item(definition)).metadata == text


# The form


@pytest.mark.parametrize("definition", [ItemDefinition(name="i"), ItemDefinition(name="i", limits=())])
def test_only_what_is_set_is_printed_of_an_item(definition: ItemDefinition) -> None:
    assert formatting.format_item(definition) == b"<fs>\n  <name>i</name>\n</fs>\n"


def test_only_what_is_set_is_printed_of_a_pool() -> None:
    definition = PoolDefinition(name="p", type=PoolType.DIR)
    assert formatting.format_pool(definition) == b"<fspool type='dir'>\n  <name>p</name>\n</fspool>\n"


def test_permissions_without_a_target_path_are_printed_inside_the_target_of_a_pool() -> None:
    definition = PoolDefinition(name="p", type=PoolType.DIR, permissions=Permissions(mode=0))
    assert b"  <target>\n    <permissions>\n      <mode>0000</mode>\n" in formatting.format_pool(definition)


def test_limits_alone_are_printed_among_permissions() -> None:
    definition = ItemDefinition(name="i", limits=(("pids.max", "5"),))
    assert formatting.format_item(definition).decode().splitlines()[2:-1] == [
        "  <permissions>",
        "    <cgroups>",
        "      <pids.max>5</pids.max>",
        "    </cgroups>",
        "  </permissions>",
    ]


def test_a_soft_limit_without_a_capacity_is_printed_beside_a_capacity_of_zero() -> None:
    definition = ItemDefinition(name="i", soft=SoftLimit(size=4096), files=7)
    assert formatting.format_item(definition).decode().splitlines()[2:-1] == [
        "  <capacity unit='bytes' soft='4096'>0</capacity>",
        "  <files>7</files>",
    ]


@pytest.mark.parametrize(("mode", "text"), [(0, "0000"), (0o7, "0007"), (0o750, "0750"), (0o1777, "1777")])
def test_a_mode_is_printed_with_four_octal_digits(mode: int, text: str) -> None:
    document = formatting.format_item(ItemDefinition(name="i", permissions=Permissions(mode=mode)))
    assert f"<mode>{text}</mode>".encode() in document


def test_zero_is_printed_where_it_is_a_value() -> None:
    definition = PoolDefinition(
        name="p",
        type=PoolType.DIR,
        permissions=Permissions(owner=0, group=0),
        trash=TrashPolicy(retention=0),
    )
    document = formatting.format_pool(definition)
    for text in (b"<owner>0</owner>", b"<group>0</group>", b"<trash retention='none'/>"):
        assert text in document


def test_special_characters_are_escaped_where_they_stand() -> None:
    definition = ItemDefinition(
        name="a<&>'\"",
        uuid=UUID(int=5),
        pool="p'\"<&>",
        origin=ItemOrigin(fs="f'", snapshot='s"'),
        path="/x<&>'",
        limits=(("io.max", "a<b"),),
    )
    text = formatting.format_item(definition).decode()
    assert "<name>a&lt;&amp;&gt;'\"</name>" in text
    assert "<source fspool='p&apos;\"&lt;&amp;&gt;' fs='f&apos;' snapshot='s\"'/>" in text
    assert "<path>/x&lt;&amp;&gt;'</path>" in text
    assert "<io.max>a&lt;b</io.max>" in text
