"""Capacities and soft limits through the control tree, on simulated storage that enforces and counts."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mount.control import ControlTree, last_error, refused, request, value
from support.daemon import daemons
from support.needs import needs_fuse, needs_root
from support.shell import sh
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

#: What an empty item holds: its directory.
EMPTY = 4096


@pytest.fixture(scope="module")
def tree(run_directory: Path) -> Iterator[ControlTree]:
    """The tree of a daemon whose storage is simulated."""
    with daemons(run_directory) as make:
        yield ControlTree(make("--sim"))


def test_a_capacity_is_what_was_asked_for_and_tells_what_is_left(item: Path) -> None:
    assert (value(item / "capacity"), value(item / "allocation")) == ("none", str(EMPTY))
    assert sh('echo 20G > "$1/capacity"', item).returncode == 0
    assert value(item / "capacity") == str(20 << 30)
    assert value(item / "available") == str((20 << 30) - EMPTY)
    assert f"<capacity unit='bytes'>{20 << 30}</capacity>" in (item / "config.xml").read_text()
    assert "Allocation:     4.00 KiB, 0% of the capacity\n" in (item / "info").read_text()
    assert "Files:          1\n" in (item / "info").read_text()
    request(item / "capacity", "none")
    assert value(item / "capacity") == "none"


def test_what_is_left_is_no_more_than_what_the_pool_has(some_pool: Path, item: Path) -> None:
    request(item / "capacity", "4000PiB")
    assert 0 < int(value(item / "available")) <= int(value(some_pool / "capacity"))


def test_a_capacity_below_what_is_there_is_refused(item: Path) -> None:
    request(item / "capacity", "1M")
    with refused(errno.EBUSY):
        request(item / "capacity", "1000")
    assert last_error(item) == (
        f"change item {item.name}: it holds 4096 bytes, more than the capacity of 1000 that was asked for; "
        "remove something from it, or ask for at least 4096"
    )
    assert value(item / "capacity") == str(1 << 20)
    assert value(item / "status") == "ready"


def test_a_pool_gives_its_items_limits_and_tells_what_it_promised(tree: ControlTree) -> None:
    pool = tree.active_pool(
        "<defaults><capacity unit='GiB' soft='80%'>512</capacity><files>1000</files></defaults>"
    )
    for name in ("a", "b", "c"):
        text = (tree.new_item(pool, name) / "config.xml").read_text()
        assert f"<capacity unit='bytes' soft='80%'>{512 << 30}</capacity>\n  <files>1000</files>\n" in text
    assert "Promised:       1.50 TiB, 150% of the capacity\n" in (pool / "info").read_text()
    info = (pool / "items" / "a" / "info").read_text()
    assert "Soft limit:     409.60 GiB (80%)\n" in info
    assert "Files:          1, at most 1000\n" in info


def test_a_soft_limit_is_told_in_events_and_metrics(tree: ControlTree) -> None:
    pool = tree.active_pool()
    item = tree.new_item(pool)

    def told() -> list[tuple[str, int, int]]:
        lines = [json.loads(line) for line in (tree.mount / "events").read_text().splitlines() if line]
        return [
            (line["event"], line["usage"], line["limit"])
            for line in lines
            if line["pool"] == pool.name and "soft-limit" in line["event"]
        ]

    def above() -> list[float]:
        return [
            sample.value
            for family in text_string_to_metric_families((tree.mount / "metrics").read_text())
            for sample in family.samples
            if sample.name == "fspoolfs_item_above_soft_limit" and sample.labels["pool"] == pool.name
        ]

    document = "<fs><name>web</name><capacity soft='80%'>{}</capacity></fs>"
    request(item / "config.xml", document.format(5000))
    eventually(lambda: len(told()) == 1, what="the soft limit is told of")
    assert above() == [1]
    assert ", reached\n" in (item / "info").read_text()
    request(item / "config.xml", document.format(6000))
    eventually(lambda: len(told()) == 2, what="it is told that it is below again")
    assert above() == [0]
    assert told() == [("item-above-soft-limit", EMPTY, 4000), ("item-below-soft-limit", EMPTY, 4800)]
    item.rmdir()
    assert above() == []


def test_metrics_tell_what_items_hold(tree: ControlTree) -> None:
    pool = tree.active_pool()
    request(tree.new_item(pool) / "capacity", "1M")
    tree.new_item(pool, "open")

    def sample(name: str, item: str) -> list[float]:
        return [
            sample.value
            for family in text_string_to_metric_families((tree.mount / "metrics").read_text())
            for sample in family.samples
            if (sample.name, sample.labels.get("pool"), sample.labels.get("item", ""))
            == (f"fspoolfs_{name}", pool.name, item)
        ]

    eventually(lambda: sample("item_allocation_bytes", "open") == [EMPTY], what="it is counted")
    assert sample("item_allocation_bytes", "web") == [EMPTY]
    assert sample("item_capacity_bytes", "web") == [1 << 20]
    assert sample("item_capacity_bytes", "open") == []
    assert sample("pool_promised_bytes", "") == [1 << 20]


def test_a_clone_by_definition_is_as_large_as_its_origin(tree: ControlTree) -> None:
    pool = tree.active_pool()
    request(tree.new_item(pool, "base") / "capacity", "1M")
    request(tree.define, f"<fs><name>copy</name><source fspool='{pool.name}' fs='base'/></fs>")
    eventually(lambda: value(pool / "items" / "copy" / "status") == "ready", what="it is cloned")
    assert value(pool / "items" / "copy" / "capacity") == str(1 << 20)


@pytest.mark.parametrize("limit", ["<files>0</files>", "<capacity soft='80%'>0</capacity>"])
def test_a_limit_that_says_nothing_is_refused_with_its_line(item: Path, limit: str) -> None:
    with refused(errno.EINVAL):
        request(item / "config.xml", f"<fs>\n<name>{item.name}</name>\n{limit}</fs>")
    assert last_error(item).startswith("line 3: ")
