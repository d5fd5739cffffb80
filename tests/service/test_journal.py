"""The journal: what is found again after an end at any moment, and that nothing unread is overwritten."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspoolfs.backends import layout
from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.errors import TooLargeError
from fspoolfs.service.journal import Journal

SEGMENT = 1024


def new_tree() -> MemoryTree:
    tree = MemoryTree()
    tree.make_directory(layout.OWN, mode=0o700)
    tree.sync()
    return tree


def open_on(tree: MemoryTree, *, segment: int = SEGMENT) -> Journal:
    return Journal.open(MemoryRoot(tree, "/tank"), segment=segment)


def pending(journal: Journal) -> list[bytes]:
    return [record.payload for record in journal.pending]


def content(tree: MemoryTree) -> bytes:
    return tree.read_at(tree.inode(layout.JOURNAL), 0, 2 * SEGMENT)


def append(journal: Journal, payload: bytes) -> int:
    """As the committer does: make room by declaring all stable, then append and sync."""
    if not journal.room(payload):
        journal.stabilise(journal.last)
    number = journal.append(payload)
    journal.sync()
    return number


def test_a_new_journal_holds_nothing_and_is_allocated() -> None:
    tree = new_tree()
    journal = open_on(tree)
    assert (journal.last, journal.unstable, pending(journal)) == (0, 0, [])
    assert tree.info(layout.JOURNAL).size == 2 * SEGMENT
    assert tree.info(layout.JOURNAL).mode & 0o777 == 0o600


def test_synced_records_are_found_again_in_order() -> None:
    tree = new_tree()
    journal = open_on(tree)
    assert [append(journal, text) for text in (b"one", b"", b"three\n<x/>\0")] == [1, 2, 3]
    again = open_on(tree.power_cut())
    assert pending(again) == [b"one", b"", b"three\n<x/>\0"]
    assert (again.last, again.unstable) == (3, 3)


def test_stable_records_are_not_found_again_once_a_later_record_says_so() -> None:
    tree = new_tree()
    journal = open_on(tree)
    for text in (b"one", b"two"):
        append(journal, text)
    journal.stabilise(1)
    assert journal.unstable == 1
    append(journal, b"three")
    assert pending(open_on(tree)) == [b"two", b"three"]


def test_a_journal_in_which_nothing_was_recorded_is_closed_without_a_write() -> None:
    tree = new_tree()
    journal = open_on(tree)
    append(journal, b"one")
    journal.stabilise(journal.last)
    journal.close()
    before = content(tree)
    for _ in range(2):
        again = open_on(tree)
        again.stabilise(again.last)
        again.close()
        assert content(tree) == before
    again = open_on(tree)
    append(again, b"two")
    again.stabilise(again.last)
    again.close()
    assert pending(open_on(tree.power_cut())) == [b""]


@pytest.mark.parametrize("size", [1, 40 << 10, (64 << 10) - 40, 64 << 10, 100 << 10, 300 << 10])
def test_records_of_any_size_are_found_in_a_large_segment(size: int) -> None:
    tree = new_tree()
    journal = open_on(tree, segment=1 << 20)
    texts = [bytes([65 + number]) * (size + number) for number in range(3)]
    for text in texts:
        append(journal, text)
    assert pending(open_on(tree.power_cut(), segment=1 << 20)) == texts


def test_a_closed_journal_has_nothing_pending() -> None:
    tree = new_tree()
    journal = open_on(tree)
    append(journal, b"one")
    journal.stabilise(journal.last)
    journal.close()
    again = open_on(tree.power_cut())
    assert pending(again) == [b""]
    again.stabilise(again.last)
    again.close()
    assert open_on(tree).last == 2


def test_an_abandoned_journal_is_as_it_was() -> None:
    tree = new_tree()
    journal = open_on(tree)
    append(journal, b"one")
    before = tree.content(layout.JOURNAL)
    open_on(tree).abandon()
    assert tree.content(layout.JOURNAL) == before


def test_a_record_larger_than_a_segment_is_refused_and_changes_nothing() -> None:
    tree = new_tree()
    journal = open_on(tree)
    with pytest.raises(TooLargeError, match="too large to be journalled"):
        journal.append(b"x" * SEGMENT)
    assert append(journal, b"one") == 1


def test_there_is_no_room_while_the_other_segment_is_not_stable() -> None:
    journal = open_on(new_tree())
    count = 0
    while journal.room(b"x" * 200):
        journal.append(b"x" * 200)
        count += 1
    assert count == 2 * (SEGMENT // 240)
    assert not journal.room(b"x" * 200)
    journal.stabilise(1)
    assert not journal.room(b"x" * 200), "one record of the segment could still be replayed"
    journal.stabilise(count // 2)
    assert journal.room(b"x" * 200)


@pytest.mark.parametrize("damage", [0, 3, 8, 20, 30, -2])
def test_a_damaged_record_ends_what_is_found(damage: int) -> None:
    tree = new_tree()
    journal = open_on(tree)
    append(journal, b"one")
    start = tree.content(layout.JOURNAL).index(b"\0")
    append(journal, b"two: and some more text")
    end = tree.content(layout.JOURNAL).index(b"\0")
    append(journal, b"three")
    at = start + damage if damage >= 0 else end + damage
    inode = tree.inode(layout.JOURNAL)
    byte = tree.read_at(inode, at, 1)
    tree.write_at(inode, at, bytes([byte[0] ^ 1]))
    assert pending(open_on(tree)) == [b"one"]


def test_what_an_earlier_use_of_the_segment_left_is_not_taken_for_new() -> None:
    tree = new_tree()
    journal = open_on(tree)
    for number in range(40):
        append(journal, b"%d" % number + b"x" * (number % 5 * 30))
        found = pending(open_on(tree.power_cut()))
        assert found[-1] == b"%d" % number + b"x" * (number % 5 * 30)
        numbers = [int(text.rstrip(b"x")) for text in found]
        assert numbers == list(range(numbers[0], number + 1))


@given(
    lengths=st.lists(st.integers(0, 500), min_size=1, max_size=40),
    marks=st.sets(st.integers(0, 39)),
    synced=st.integers(0, 40),
    seed=st.integers(0, 1 << 16),
)
def test_after_a_power_cut_all_that_was_synced_and_is_not_stable_is_found(
    lengths: list[int], marks: set[int], synced: int, seed: int
) -> None:
    """Of what was written later, any record may be found, but none that is torn."""
    tree = new_tree()
    journal = open_on(tree)
    written: list[bytes] = []
    durable = stable = 0
    for number, length in enumerate(lengths, start=1):
        payload = b"%d:" % number + b"x" * length
        if number in marks or not journal.room(payload):
            journal.sync()
            durable = journal.last
            journal.stabilise(journal.last)
            stable = journal.last
        journal.append(payload)
        written.append(payload)
        if number <= synced:
            journal.sync()
            durable = number
    survivor = tree.power_cut(random.Random(seed))
    found = open_on(survivor)
    numbers = [record.number for record in found.pending]
    assert numbers == sorted(set(numbers))
    assert all(record.payload == written[record.number - 1] for record in found.pending)
    # All that could be needed is there: what is durable and was not said to be stable.
    assert set(range(stable + 1, durable + 1)) <= set(numbers)
    # When recovery has made it true, the journal goes on, and forgets nothing that comes.
    found.stabilise(found.last)
    found.append(b"next")
    found.sync()
    assert pending(open_on(survivor.power_cut(random.Random(seed)))) == [b"next"]
