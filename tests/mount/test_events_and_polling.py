"""What a watcher sees: events, poll(2), jobs, metrics, and what appending to a control file does."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from mount.control import ControlTree, last_error, refused, request, value
from support.daemon import MakeDaemon
from support.needs import needs_program, needs_root
from support.shell import run, sh
from support.wait import eventually

pytestmark = [needs_root, pytest.mark.required]

#: Seconds in which what is watched for must come.
_LIMIT = 10.0


@contextmanager
def polled(file: Path) -> Iterator[tuple[int, select.poll]]:
    """The file, read to its end, and a poll(2) of it."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        while os.read(descriptor, 1 << 16):
            pass
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield descriptor, poll
    finally:
        os.close(descriptor)


def events(tree: ControlTree, pool: Path) -> list[dict[str, str]]:
    """The events of one pool, oldest first."""
    found = [json.loads(line) for line in (tree.mount / "events").read_text().splitlines() if line]
    return [event for event in found if event["pool"] == pool.name]


# Events


def test_each_change_is_an_event(tree: ControlTree) -> None:
    pool = tree.active_pool()
    item = tree.new_item(pool)
    item.chmod(0o700)
    item.rename(pool / "items" / "shop")
    (pool / "items" / "shop").rmdir()
    (pool / "trash" / "shop").rename(item)
    request(item / "status", "clone copy")
    item.rmdir()
    (pool / "trash" / "web").rmdir()
    request(pool / "status", "stop")
    pool.rmdir()
    found = events(tree, pool)
    kinds = [event["event"] for event in found]
    expected = [
        *("pool-defined", "pool-state", "item-created", "item-changed", "item-renamed", "item-deleted"),
        *("trash-restored", "item-created", "job-done", "item-deleted", "trash-purged", "pool-undefined"),
    ]
    remaining = iter(kinds)
    assert all(kind in remaining for kind in expected), kinds
    times = [float(event["time"]) for event in found]
    assert times == sorted(times)


@needs_program("tail")
@pytest.mark.parametrize("option", ["-f", "-F"])
def test_tail_follows_the_events(tree: ControlTree, pool: Path, option: str) -> None:
    tail = subprocess.Popen(
        ["tail", "-n", "0", option, tree.mount / "events"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert tail.stdout is not None
        poll = select.poll()
        poll.register(tail.stdout, select.POLLIN)
        # Until tail has looked for the end of the file it may miss an event.
        for number in range(50):
            tree.new_item(pool, f"item{number}")
            if poll.poll(500):
                break
        line = json.loads(tail.stdout.readline())
        assert line["event"] == "item-created"
        assert line["pool"] == pool.name
    finally:
        tail.kill()
        tail.communicate()


@needs_program("tail", "head", "wc")
def test_the_events_have_a_length_and_a_beginning(tree: ControlTree, pool: Path) -> None:
    file = tree.mount / "events"
    assert file.stat().st_size == len(file.read_bytes())
    tree.new_item(pool)
    assert run("tail", "-n", "1", file).stdout == file.read_text().splitlines(keepends=True)[-1]
    assert run("head", "-c", "10", file).stdout == file.read_text()[:10]
    assert int(run("wc", "-l", file).stdout.split()[0]) == file.read_text().count("\n")


def test_poll_wakes_at_an_event_and_not_before(tree: ControlTree, pool: Path) -> None:
    with polled(tree.mount / "events") as (descriptor, poll):
        assert poll.poll(0) == []
        tree.new_item(pool)
        assert poll.poll(_LIMIT * 1000)
        assert b"item-created" in os.read(descriptor, 1 << 16)
        assert poll.poll(0) == []


def test_poll_wakes_while_it_waits(tree: ControlTree, pool: Path) -> None:
    with polled(tree.mount / "events") as (_, poll):
        maker = subprocess.Popen(["sh", "-c", 'sleep 0.3; mkdir "$1"', "sh", pool / "items" / "late"])
        assert poll.poll(_LIMIT * 1000)
        assert maker.wait(_LIMIT) == 0


def test_poll_of_a_status_wakes_when_it_changes(pool: Path) -> None:
    with polled(pool / "status") as (descriptor, poll):
        assert poll.poll(0) == []
        request(pool / "status", "stop")
        assert poll.poll(_LIMIT * 1000)
        assert os.pread(descriptor, 100, 0) == b"inactive\n"
        assert poll.poll(0) == []


def test_poll_of_an_items_status_wakes_when_it_changes(tree: ControlTree, pool: Path) -> None:
    item = tree.new_item(pool)
    with polled(item / "status") as (descriptor, poll):
        Path(os.readlink(item / "data")).rmdir()
        request(pool / "status", "refresh")
        assert poll.poll(_LIMIT * 1000)
        assert os.pread(descriptor, 100, 0) == b"missing\n"


def test_a_listing_shows_at_once_what_another_way_has_made(tree: ControlTree, pool: Path) -> None:
    for number in range(20):
        os.listdir(pool / "items")
        request(tree.define, f"<fs><name>i{number}</name><source fspool='{pool.name}'/></fs>")
        assert f"i{number}" in os.listdir(pool / "items")
        assert (pool / "items" / f"i{number}" / "status").exists()


# Jobs


@pytest.fixture
def hasty(make_daemon: MakeDaemon) -> ControlTree:
    """A daemon that lets no request wait for long."""
    return ControlTree(make_daemon("--grace", "0.05"))


@pytest.fixture
def heavy(hasty: ControlTree) -> Path:
    """An item that takes longer to copy than a request waits."""
    pool = hasty.defined_pool()
    item = pool / "items" / "web"
    with suppress(OSError):  # on a slow machine even this goes on in the background
        request(pool / "status", "start build")
    eventually(lambda: value(pool / "status") == "active", what="the pool is active")
    with suppress(OSError):
        item.mkdir()
    eventually(lambda: value(item / "status") == "ready", what="the item is there")
    data = Path(os.readlink(item / "data"))
    for number in range(6000):
        (data / f"file{number}").touch()
    return item


def test_what_takes_long_goes_on_as_a_job_that_can_be_followed(hasty: ControlTree, heavy: Path) -> None:
    pool, copy = heavy.parents[1], heavy.parent / "copy"
    with refused(errno.EINPROGRESS):
        request(heavy / "status", "clone copy")
    assert "job" in last_error(heavy)
    assert value(copy / "status").startswith("creating")
    lines = run("cat", copy / "job").stdout.splitlines()
    assert lines[-1] == "done"
    assert len(lines) > 1
    assert value(copy / "status") == "ready"
    assert len(os.listdir(copy / "data")) == 6000
    assert (copy / "job").read_text() == "done\n"
    assert [event["job"] for event in events(hasty, pool) if event["event"] == "job-done"][-1] == "clone"


def test_a_cancelled_job_leaves_nothing_behind(hasty: ControlTree, heavy: Path) -> None:
    pool, copy = heavy.parents[1], heavy.parent / "copy"
    with refused(errno.EINPROGRESS):
        request(heavy / "status", "clone copy")
    with (copy / "job").open() as job:
        assert job.readline()
        request(copy / "job", "cancel")
        assert "cancel" in job.read()
    eventually(lambda: os.listdir(pool / "items") == ["web"], what="the cancelled clone is gone")
    own = Path(os.readlink(pool / "root")) / ".fspool"
    eventually(
        lambda: not os.listdir(own / "staging") and not os.listdir(own / "purge"), what="its storage is free"
    )
    assert value(heavy / "status") == "ready"
    assert any(event["event"] == "job-failed" for event in events(hasty, pool))


def test_a_job_file_tells_how_the_last_job_ended(tree: ControlTree, pool: Path) -> None:
    item = tree.new_item(pool)
    assert (item / "job").read_text() == "none\n"
    request(item / "status", "measure")
    assert (item / "job").read_text() == "done\n"
    assert (pool / "job").read_text() == "done\n"
    failing = tree.defined_pool()
    with refused(errno.ENOENT):
        request(failing / "status", "start")
    assert (failing / "job").read_text().startswith("failed: ")


def test_there_is_nothing_to_cancel_when_no_job_runs(tree: ControlTree, pool: Path) -> None:
    item = tree.new_item(pool)
    for directory in (pool, item):
        with refused(errno.EBUSY):
            request(directory / "job", "cancel")
        with refused(errno.EINVAL):
            request(directory / "job", "stop it")
        assert last_error(directory)


# Appending, metrics, version


@pytest.mark.parametrize("line", ['echo "$2" >> "$1"', 'echo "$2" 1<> "$1"', 'echo "$2" | tee -a "$1"'])
def test_a_verb_may_be_appended(pool: Path, line: str) -> None:
    sh(line, pool / "status", "stop")
    assert value(pool / "status") == "inactive"
    sh(line, pool / "status", "start")
    assert value(pool / "status") == "active"


def test_two_requests_in_one_open_file_are_two_requests(pool: Path) -> None:
    sh('(echo stop; echo start; echo stop) > "$1"', pool / "status")
    assert value(pool / "status") == "inactive"


def test_the_shell_learns_of_a_refusal(pool: Path) -> None:
    for shell in ("bash", "dash"):
        result = run(shell, "-c", 'echo start > "$1" && echo went on', shell, pool / "status", check=False)
        assert result.returncode != 0
        assert result.stdout == ""


def metrics(tree: ControlTree) -> list[Metric]:
    text = (tree.mount / "metrics").read_text()
    return list(text_string_to_metric_families(text))


def test_the_metrics_are_what_prometheus_reads(tree: ControlTree, pool: Path) -> None:
    for number in range(3):
        tree.new_item(pool, f"i{number}")
    (pool / "items" / "i0").rmdir()
    with refused(errno.EEXIST):
        request(tree.define, f"<fspool type='dir'><name>x</name><uuid>{value(pool / 'uuid')}</uuid></fspool>")
    families = {family.name: family for family in metrics(tree)}

    def sample(family: str, **labels: str) -> float:
        found = [one for one in families[family].samples if labels.items() <= one.labels.items()]
        assert len(found) == 1, found
        return found[0].value

    assert sample("fspoolfs_pool_items", pool=pool.name, state="ready") == 2
    assert sample("fspoolfs_pool_trash_items", pool=pool.name) == 1
    assert sample("fspoolfs_pool_state", pool=pool.name, state="active") == 1
    assert sample("fspoolfs_pool_state", pool=pool.name, state="failed") == 0
    assert sample("fspoolfs_pool_bytes", pool=pool.name, kind="capacity") > 0
    assert sample("fspoolfs_request_failures", errno="EEXIST") >= 1
    assert sample("fspoolfs_build_info", version=value(tree.mount / "version")) == 1
    assert all(family.documentation for family in families.values())


def test_a_name_that_is_odd_stays_one_label(tree: ControlTree) -> None:
    name = 'a"b\\c{d}=e,f'
    (tree.pools / name).mkdir()
    assert name in {sample.labels.get("pool") for family in metrics(tree) for sample in family.samples}
    (tree.pools / name).rmdir()
