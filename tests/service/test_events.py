"""The event log: what is kept, how it is addressed, what a line says."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspoolfs.service.events import Event, EventLog


def test_an_event_is_one_line_of_json() -> None:
    event = Event(kind="item-renamed", pool="t\u00e4nk\n", item='a"b', details={"old": "c\u2028"})
    line = event.line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    record = json.loads(line)
    assert record.pop("time") == pytest.approx(time.time(), abs=60)
    assert record == {"event": "item-renamed", "pool": "t\u00e4nk\n", "item": 'a"b', "old": "c\u2028"}


def test_an_event_of_a_pool_names_no_item() -> None:
    assert "item" not in json.loads(Event(kind="pool-state", pool="tank").line())


def test_listeners_hear_every_event_in_order() -> None:
    log = EventLog()
    heard: list[Event] = []
    log.listen(heard.append)
    events = [Event(kind="pool-state", pool=str(number)) for number in range(3)]
    for event in events:
        log.publish(event)
    assert heard == events


@given(
    st.integers(1, 2000),
    st.lists(st.integers(0, 200), max_size=30),
    st.integers(0, 5000),
    st.integers(0, 5000),
)
def test_any_part_of_what_is_kept_can_be_read_and_the_rest_is_blank(
    kept: int, lengths: list[int], offset: int, size: int
) -> None:
    log, whole = EventLog(kept=kept), b""
    for length in lengths:
        before = log.end
        log.publish(Event(kind="pool-state", pool="p" * length))
        whole += log.read(before, log.end - before) or b"\n" * (log.end - before)
    assert log.end - log.start <= kept
    assert log.end == len(whole)
    expected = (b"\n" * log.start + whole[log.start :])[offset : offset + size]
    assert log.read(offset, size) == expected


def test_what_is_kept_begins_with_a_whole_line() -> None:
    log = EventLog(kept=300)
    for number in range(50):
        log.publish(Event(kind="pool-state", pool=f"tank{number}"))
    assert log.start > 0
    lines = log.read(log.start, 10_000).splitlines()
    assert [json.loads(line)["pool"] for line in lines][-1] == "tank49"


def test_the_beginning_and_the_end_only_grow() -> None:
    log, before = EventLog(kept=200), (0, 0)
    for number in range(40):
        log.publish(Event(kind="pool-state", pool="x" * (number % 7)))
        assert (log.start, log.end) >= before
        assert log.start >= before[0]
        before = (log.start, log.end)
