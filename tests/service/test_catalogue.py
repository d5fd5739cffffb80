"""What a start reads: definitions are the truth, the index a shortcut, a bad file fails alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from uuid import uuid4

import pytest

from fspoolfs.backends import layout
from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.errors import CorruptError
from fspoolfs.model import formatting
from fspoolfs.model.definitions import ItemDefinition, ItemOrigin, Permissions, SoftLimit
from fspoolfs.service import catalogue, identity, trashcan
from fspoolfs.service.objects import Item, TrashEntry

from .scenes import Recorder, item

#: Nanoseconds after which a file is old enough to be indexed.
OLD = 10_000_000_000


class Pool:
    """A root with items, whose calls are counted."""

    def __init__(self) -> None:
        self.calls = Recorder()
        self.root = MemoryRoot(MemoryTree(), "/tank", interceptor=self.calls)
        identity.claim(self.root, identity.Identity(uuid=uuid4(), name="tank"))

    def add(self, definition: ItemDefinition, *, directory: bool = True) -> None:
        self.write(definition.name, formatting.format_item(definition))
        if directory:
            self.root.make_directory(definition.location, mode=0o755)

    def write(self, name: str, data: bytes) -> None:
        self.root.write(layout.definition(name), data, replace=True, durable=False)

    def load(self) -> dict[str, str]:
        self.calls.calls.clear()
        return {name: one.state.value for name, one in self.items().items()}

    def items(self) -> dict[str, Item]:
        return {one.name: one for one in catalogue.load_items(self.root).items}

    def definitions(self) -> dict[str, ItemDefinition]:
        return {name: one.definition for name, one in self.items().items()}

    def index(self, *, age: int = OLD) -> None:
        catalogue.save_index(self.root, self.items().values(), time.time_ns() + age)

    def rewrite_index(self, change: Callable[[list[list[object]]], None]) -> None:
        head, rows = self.root.read(layout.INDEX, limit=1 << 20).splitlines()
        decoded = json.loads(rows)
        change(decoded)
        data = head + b"\n" + json.dumps(decoded).encode()
        self.root.write(layout.INDEX, data, replace=True, durable=False)


def plain(name: str) -> ItemDefinition:
    return item(name, uuid=uuid4(), permissions=Permissions(mode=0o755, owner=1, group=2))


@pytest.fixture
def pool() -> Pool:
    found = Pool()
    for number in range(5):
        found.add(plain(f"i{number}"))
    return found


def test_a_root_without_an_index_is_read_whole(pool: Pool) -> None:
    assert pool.load() == {f"i{number}": "ready" for number in range(5)}
    assert pool.calls.calls["read"] == 1 + 5


def test_what_the_index_knows_is_not_read_again_and_is_the_same(pool: Pool) -> None:
    pool.add(item("deep", uuid=uuid4(), path="/i/n/deep"), directory=False)
    pool.add(item("large", uuid=uuid4(), capacity=1 << 40, soft=SoftLimit(percent=80), files=1000))
    pool.add(item("open", uuid=uuid4(), soft=SoftLimit(size=4096)))
    before = pool.definitions()
    pool.index()
    assert set(pool.load()) == set(before)
    assert pool.calls.calls["read"] == 1
    assert pool.definitions() == before


def test_a_definition_that_changed_since_is_read_again(pool: Pool) -> None:
    pool.index()
    changed = plain("i1")
    pool.write("i1", formatting.format_item(changed))
    assert pool.definitions()["i1"] == changed
    assert set(pool.load()) == {f"i{number}" for number in range(5)}
    assert pool.calls.calls["read"] == 2


def test_a_file_as_young_as_the_index_is_not_trusted_to_it(pool: Pool) -> None:
    """Within one tick of the clock it could change once more, with the same size."""
    pool.index(age=0)
    pool.load()
    assert pool.calls.calls["read"] == 1 + 5


@pytest.mark.parametrize(
    "extra",
    [
        {"metadata": "<metadata><a/></metadata>"},
        {"origin": ItemOrigin(fs="i0")},
        {"limits": (("io.max", "rbps=1"),)},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_definitions_with_more_in_them_are_always_read(pool: Pool, extra: dict[str, object]) -> None:
    rich = item("rich", uuid=uuid4(), **extra)
    pool.add(rich)
    pool.index()
    assert pool.definitions()["rich"] == rich


HEAD = b'{"fspoolfs-index": 3}\n'


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"fspoolfs-index": 2}\n[["i0.xml"]]',
        HEAD + b"{",
        HEAD + b"null",
        HEAD + b"[[]]",
        HEAD + b'[["i0.xml"]]',
        HEAD + b'[["i0.xml", null, null, null, null, null, null, null, null, null, null, null, null]]',
        HEAD + b"[[[]]]",
        HEAD + b'{"a": 1}',
        HEAD + b'[["gone.xml", 1, 2, 3, 4, 5, null, null, null, null, 1, 2, 3]]',
    ],
)
def test_an_index_of_no_use_costs_nothing_but_time(pool: Pool, index: bytes) -> None:
    before = pool.definitions()
    pool.root.write(layout.INDEX, index, replace=True, durable=False)
    assert pool.definitions() == before


@pytest.mark.parametrize("field", range(1, 13))
@pytest.mark.parametrize("value", [None, 1, "x", [], -1])
def test_a_row_with_nonsense_in_it_fails_no_start(pool: Pool, field: int, value: object) -> None:
    pool.index()

    def damage(rows: list[list[object]]) -> None:
        rows[0][field] = value

    pool.rewrite_index(damage)
    assert set(pool.load()) == {f"i{number}" for number in range(5)}


def test_an_item_whose_directory_is_gone_is_missing(pool: Pool) -> None:
    pool.root.remove_directory("i1")
    for _ in range(2):
        assert pool.load()["i1"] == "missing"
        pool.index()


def test_an_item_whose_directory_is_a_file_has_failed(pool: Pool) -> None:
    pool.root.remove_directory("i1")
    pool.root.write("i1", b"", replace=False, durable=False)
    found = pool.items()
    assert found["i1"].state == "failed"
    assert "not a directory" in str(found["i1"].error)
    assert found["i0"].state == "ready"


@pytest.mark.parametrize(
    "data",
    [b"", b"<fs>", b"<fs><name>i1</name></fs>", b"<fspool type='dir'><name>i1</name></fspool>", b"\0" * 100],
    ids=["empty", "torn", "without uuid", "of a pool", "zeros"],
)
def test_an_item_whose_definition_is_bad_fails_alone_and_says_where(pool: Pool, data: bytes) -> None:
    pool.write("i1", data)
    found = pool.items()
    assert {name: one.state.value for name, one in found.items()} == {
        f"i{number}": "failed" if number == 1 else "ready" for number in range(5)
    }
    assert "/tank/.fspool/items/i1.xml" in str(found["i1"].error)


def test_a_definition_under_another_name_has_failed(pool: Pool) -> None:
    pool.write("i1", formatting.format_item(plain("i9")))
    with pytest.raises(CorruptError, match="defines item 'i9', not 'i1'"):
        catalogue.read_item(pool.root, "i1")
    assert pool.load()["i1"] == "failed"


def test_what_is_being_written_and_strange_files_are_no_items_and_left_alone(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    pool.root.write(f"{layout.ITEMS}/.tmp-i1.xml", b"half", replace=False, durable=False)
    pool.root.write(f"{layout.ITEMS}/README", b"mine", replace=False, durable=False)
    assert len(pool.load()) == 5
    strange = {".tmp-i1.xml", "README"}
    assert set(pool.root.names(layout.ITEMS)) == {*(f"i{number}.xml" for number in range(5)), *strange}
    assert "README is no definition" in caplog.text


def keep_in_trash(pool: Pool, name: str, deleted: int, taken: Collection[str] = ()) -> TrashEntry:
    entry = trashcan.new_entry(plain(name), deleted, taken)
    document = formatting.format_item(entry.definition)
    pool.root.write(entry.record, document, replace=False, durable=False)
    return entry


def test_the_trash_is_read_by_name_and_bad_records_are_left_alone(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    first = keep_in_trash(pool, "web", 100)
    second = keep_in_trash(pool, "web", 200, [first.name])
    third = keep_in_trash(pool, "web", 200, [first.name, second.name])
    torn, foreign = f"{uuid4()}.7.xml", f"{uuid4()}.8.xml"
    pool.root.write(f"{layout.TRASH}/{torn}", b"<item", replace=False, durable=False)
    pool.root.write(
        f"{layout.TRASH}/{foreign}", formatting.format_item(plain("mail")), replace=False, durable=False
    )
    found = catalogue.load_trash(pool.root)
    told = {name: (one.uuid, one.deleted, one.record) for name, one in found.items()}
    assert told == {one.name: (one.uuid, one.deleted, one.record) for one in (first, second, third)}
    assert sorted(found) == ["web", "web@19700101-000320", "web@19700101-000320-2"]
    assert len(pool.root.names(layout.TRASH)) == 5
    assert all(file in caplog.text for file in (torn, foreign))


def test_deleted_items_that_share_a_name_in_the_trash_do_not_hide_each_other(pool: Pool) -> None:
    """Who copies records by hand can make two of them say the same."""
    for _ in range(2):
        keep_in_trash(pool, "web", 100)
    found = catalogue.load_trash(pool.root)
    assert sorted(found) == ["web", "web@19700101-000140"]
