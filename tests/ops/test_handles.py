"""Open files: snapshots for readers, one write one request, documents in the making, jobs, events, poll."""

from __future__ import annotations

import errno
import json
import os
import select
from dataclasses import dataclass
from typing import cast

import pyfuse3
import pytest
import trio
from pyfuse3 import FileHandleT, PollHandle

from fspoolfs.service.events import Event

from .conftest import ITEM, POOL, Kernel, context

DOCUMENT = b"<fs><name>web</name><permissions><mode>0700</mode></permissions></fs>\n"


def denied(number: int) -> pytest.RaisesExc[pyfuse3.FUSEError]:
    """The kernel gets this errno and nothing else."""
    return pytest.RaisesExc(pyfuse3.FUSEError, check=lambda error: error.errno == number)


async def opened(kernel: Kernel, path: str) -> FileHandleT:
    return await kernel.open(path, os.O_RDWR)


# -- values ---------------------------------------------------------------------------------------


async def test_a_reader_sees_one_snapshot_until_it_begins_again(kernel: Kernel) -> None:
    handle, read = await opened(kernel, f"{POOL}/status"), kernel.operations.read
    assert await read(handle, 0, 3) == b"act"
    await kernel.write(f"{POOL}/status", b"stop")
    assert await read(handle, 3, 100) == b"ive\n"
    assert await read(handle, 7, 100) == b""
    assert await read(handle, 0, 100) == b"inactive\n"


async def test_a_reader_who_begins_in_the_middle_gets_the_content_of_that_moment(kernel: Kernel) -> None:
    handle = await opened(kernel, f"{POOL}/status")
    await kernel.write(f"{POOL}/status", b"stop")
    assert await kernel.operations.read(handle, 2, 100) == b"active\n"


@pytest.mark.parametrize("path", [f"{POOL}/status", f"{ITEM}/config.xml", "version", "events", f"{ITEM}/job"])
async def test_what_stat_says_of_a_size_is_what_is_read(path: str, kernel: Kernel) -> None:
    content = await kernel.read(path)
    if not path.endswith("job"):
        assert (await kernel.stat(path)).st_size == len(content) > 0


async def test_one_write_is_one_request(kernel: Kernel) -> None:
    handle = await opened(kernel, f"{POOL}/status")
    await kernel.operations.write(handle, 0, b"stop\n")
    await kernel.operations.write(handle, 5, b"start\n")
    with denied(errno.EBUSY):
        await kernel.operations.write(handle, 11, b"start\n")
    with denied(errno.EINVAL):
        await kernel.operations.write(handle, 0, b"stop start\n")
    assert await kernel.read(f"{POOL}/status") == b"active\n"


@pytest.mark.parametrize("data", [b"", b"\n", b" \t", b"\0", b"\xff\xfe", b"stop\0", b"x" * 70000, b"STOP"])
async def test_what_is_no_verb_is_refused_with_a_sentence(data: bytes, kernel: Kernel) -> None:
    handle = await opened(kernel, f"{POOL}/status")
    with denied(errno.EINVAL):
        await kernel.operations.write(handle, 0, data)
    assert await kernel.read(f"{POOL}/status") == b"active\n"
    sentence = await kernel.read(f"{POOL}/last_error")
    assert sentence.count(b"\n") == 1
    assert len(sentence) > 10


async def test_a_file_that_only_reports_is_not_opened_for_writing(kernel: Kernel) -> None:
    for path in ("version", "metrics", f"{POOL}/uuid", f"{ITEM}/users"):
        for flags in (os.O_WRONLY, os.O_RDWR):
            with denied(errno.EPERM):
                await kernel.open(path, flags)


async def test_a_directory_and_a_link_are_not_opened(kernel: Kernel) -> None:
    with denied(errno.EISDIR):
        await kernel.open(ITEM)
    with denied(errno.ELOOP):
        await kernel.open(f"{ITEM}/data")
    with denied(errno.EINVAL):
        await kernel.operations.readlink(await kernel.inode(f"{ITEM}/status"), context())


async def test_a_link_leads_to_the_real_directory(kernel: Kernel) -> None:
    target = await kernel.operations.readlink(await kernel.inode(f"{ITEM}/data"), context())
    assert target == b"/storage/pools/tank/web"
    assert (await kernel.stat(f"{ITEM}/data")).st_size == len(target)


async def test_a_handle_of_an_item_that_is_gone_acts_on_no_other(kernel: Kernel) -> None:
    handle = await opened(kernel, f"{ITEM}/status")
    document = await opened(kernel, f"{ITEM}/config.xml")
    await kernel.rmdir(ITEM)
    await kernel.mkdir(ITEM)
    with denied(errno.ENOENT):
        await kernel.operations.write(document, 0, DOCUMENT)
    with denied(errno.ENOENT):
        await kernel.operations.write(handle, 0, b"clone copy")
    with denied(errno.ENOENT):
        await kernel.operations.write(handle, 0, b"measure")
    assert not await kernel.exists(f"{POOL}/items/copy")
    assert b"0755" in await kernel.read(f"{ITEM}/config.xml")


async def test_the_caller_is_who_opened_the_file(kernel: Kernel) -> None:
    handle = await kernel.open(f"{POOL}/status", os.O_WRONLY, uid=1001)
    with denied(errno.EACCES):
        await kernel.operations.write(handle, 0, b"stop")
    assert b"user 1001 may not stop pool tank" in await kernel.read(f"{POOL}/last_error")


# -- documents ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_a_document_takes_effect_with_the_write_that_completes_it(size: int, kernel: Kernel) -> None:
    handle = await opened(kernel, f"{ITEM}/config.xml")
    before = await kernel.read(f"{ITEM}/config.xml")
    whole = len(DOCUMENT.rstrip())
    for offset in range(0, len(DOCUMENT), size):
        assert await kernel.read(f"{ITEM}/config.xml") == before or offset >= whole
        await kernel.operations.write(handle, offset, DOCUMENT[offset : offset + size])
    assert b"0700" in await kernel.read(f"{ITEM}/config.xml")


async def test_a_malformed_document_fails_the_very_write(kernel: Kernel) -> None:
    handle = await opened(kernel, f"{ITEM}/config.xml")
    await kernel.operations.write(handle, 0, b"<fs><name>web")
    with denied(errno.EINVAL):
        await kernel.operations.write(handle, 13, b"</mane>")
    assert b"0755" in await kernel.read(f"{ITEM}/config.xml")


async def test_a_flush_says_that_a_document_is_not_finished_and_keeps_it(kernel: Kernel) -> None:
    handle = await opened(kernel, f"{ITEM}/config.xml")
    await kernel.operations.flush(handle)
    await kernel.operations.write(handle, 0, DOCUMENT[:20])
    for _ in range(2):
        with denied(errno.EINVAL):
            await kernel.operations.flush(handle)
    await kernel.operations.write(handle, 20, DOCUMENT[20:])
    await kernel.operations.flush(handle)
    assert b"0700" in await kernel.read(f"{ITEM}/config.xml")


async def test_releasing_an_unfinished_document_defines_nothing(kernel: Kernel) -> None:
    before = await kernel.read(f"{ITEM}/config.xml")
    handle = await opened(kernel, f"{ITEM}/config.xml")
    await kernel.operations.write(handle, 0, DOCUMENT[:-10])
    await kernel.operations.release(handle)
    assert await kernel.read(f"{ITEM}/config.xml") == before


async def test_two_writers_do_not_mix(kernel: Kernel) -> None:
    one, two = await opened(kernel, f"{ITEM}/config.xml"), await opened(kernel, f"{ITEM}/config.xml")
    other = DOCUMENT.replace(b"0700", b"0711")
    await kernel.operations.write(one, 0, DOCUMENT[:30])
    await kernel.operations.write(two, 0, other[:30])
    await kernel.operations.write(one, 30, DOCUMENT[30:])
    assert b"0700" in await kernel.read(f"{ITEM}/config.xml")
    await kernel.operations.write(two, 30, other[30:])
    assert b"0711" in await kernel.read(f"{ITEM}/config.xml")


async def test_gaps_and_steps_back_in_a_document_are_refused(kernel: Kernel) -> None:
    for second in (0, 10, 50):
        handle = await opened(kernel, f"{ITEM}/config.xml")
        await kernel.operations.write(handle, 0, DOCUMENT[:20])
        with denied(errno.EINVAL):
            await kernel.operations.write(handle, second, DOCUMENT[20:])
    assert b"0755" in await kernel.read(f"{ITEM}/config.xml")


async def test_a_document_beyond_a_mebibyte_is_too_large(kernel: Kernel) -> None:
    handle = await opened(kernel, f"{ITEM}/config.xml")
    await kernel.operations.write(handle, 0, b"<fs><!--" + b"x" * (1 << 20 - 1))
    with denied(errno.EFBIG):
        await kernel.operations.write(handle, 8 + (1 << 20 - 1), b"x" * (1 << 20))


# -- jobs -----------------------------------------------------------------------------------------


async def test_the_job_file_tells_how_the_last_one_ended(kernel: Kernel) -> None:
    assert await kernel.read(f"{ITEM}/job") == b"none\n"
    await kernel.write(f"{ITEM}/status", b"measure")
    assert await kernel.read(f"{ITEM}/job") == b"done\n"
    with denied(errno.EBUSY):
        await kernel.write(f"{ITEM}/job", b"cancel")
    with denied(errno.EINVAL):
        await kernel.write(f"{ITEM}/job", b"stop")


async def test_the_job_file_is_followed_to_the_end_and_no_read_waits_for_long(kernel: Kernel) -> None:
    kernel.service.context.grace = 0.05
    with kernel.host.faults.hang("measure") as hang:
        with denied(errno.EINPROGRESS):
            await kernel.write(f"{ITEM}/status", b"measure")
        assert await kernel.read(f"{ITEM}/status") in (b"ready measuring\n", b"ready\n")
        handle = await opened(kernel, f"{ITEM}/job")
        begun = trio.current_time()
        first = await kernel.operations.read(handle, 0, 4096)
        assert trio.current_time() - begun < 0.5
        second = await kernel.operations.read(handle, len(first), 4096)
        assert trio.current_time() - begun < 5
        hang.release()
        third = await kernel.operations.read(handle, len(first + second), 4096)
        assert third == b"done\n"
        assert await kernel.operations.read(handle, len(first + second + third), 4096) == b""


async def test_a_job_can_be_cancelled_while_its_verb_is_waited_for(kernel: Kernel) -> None:
    kernel.service.context.grace = 0.05
    with kernel.host.faults.hang("copy_tree"):
        with denied(errno.EINPROGRESS):
            await kernel.write(f"{ITEM}/status", b"clone copy")
        await kernel.write(f"{POOL}/items/copy/job", b"cancel")
        handle = await opened(kernel, f"{POOL}/items/copy/job")
        first = await kernel.operations.read(handle, 0, 4096)
    with trio.fail_after(10):
        last = await kernel.operations.read(handle, len(first), 4096)
    assert last.startswith(b"failed: ")
    assert b"cancelled" in last
    assert not await kernel.exists(f"{POOL}/items/copy")


# -- events and poll ------------------------------------------------------------------------------


@dataclass
class Poller:
    """Stands in for the kernel's handle of one who polls."""

    notified: int = 0

    def notify(self) -> None:
        self.notified += 1


async def poll(kernel: Kernel, handle: FileHandleT, poller: Poller | None = None) -> int:
    found = cast("PollHandle | None", poller)
    return await kernel.operations.poll(pyfuse3.ROOT_INODE, handle, found, context())


def wake(kernel: Kernel) -> None:
    for handle in kernel.operations.open_handles():
        handle.wake()


async def test_events_are_read_from_the_beginning_or_from_the_end(kernel: Kernel) -> None:
    events = await kernel.read("events")
    assert [json.loads(line)["event"] for line in events.splitlines()][-1] == "item-created"
    handle = await kernel.open("events")
    assert await kernel.operations.read(handle, len(events), 4096) == b""
    await kernel.mkdir(f"{POOL}/items/new")
    news = await kernel.operations.read(handle, len(events), 4096)
    assert json.loads(news)["item"] == "new"
    assert (await kernel.stat("events")).st_size == len(events + news)


async def test_a_reader_of_events_that_have_gone_gets_what_is_kept(kernel: Kernel) -> None:
    log = kernel.service.events
    while log.start == 0:
        log.publish(Event(kind="pool-state", pool="x" * 4096))
    first = (await kernel.read("events")).splitlines()[0]
    assert json.loads(first)["pool"] == "x" * 4096
    size = (await kernel.stat("events")).st_size
    handle = await kernel.open("events")
    tail = await kernel.operations.read(handle, size - 100, 4096)
    assert len(tail) == 100
    assert tail.endswith(b"}\n")


async def test_who_polls_a_status_is_woken_by_a_change_of_it(kernel: Kernel) -> None:
    handle, poller = await opened(kernel, f"{POOL}/status"), Poller()
    assert await poll(kernel, handle, poller) & select.POLLIN
    await kernel.operations.read(handle, 0, 100)
    assert not await poll(kernel, handle, poller) & select.POLLIN
    wake(kernel)
    assert poller.notified == 0
    await kernel.write(f"{POOL}/status", b"stop")
    wake(kernel)
    wake(kernel)
    assert poller.notified == 1
    assert await poll(kernel, handle) & select.POLLIN
    assert await kernel.operations.read(handle, 0, 100) == b"inactive\n"
    assert not await poll(kernel, handle) & select.POLLIN


async def test_who_polls_events_is_woken_by_the_next_one(kernel: Kernel) -> None:
    handle, poller = await kernel.open("events"), Poller()
    read = await kernel.operations.read(handle, 0, 1 << 20)
    assert not await poll(kernel, handle, poller) & select.POLLIN
    await kernel.mkdir(f"{POOL}/items/new")
    wake(kernel)
    assert poller.notified == 1
    assert await poll(kernel, handle) & select.POLLIN
    assert await kernel.operations.read(handle, len(read), 4096)


# -- attributes -----------------------------------------------------------------------------------


@dataclass
class Fields:
    """What a setattr wants to change."""

    update_mode: bool = False
    update_uid: bool = False
    update_gid: bool = False
    update_size: bool = False
    update_mtime: bool = False


async def set_attributes(kernel: Kernel, path: str, fields: Fields, *, mode: int = 0, size: int = 0) -> None:
    entry = pyfuse3.EntryAttributes()
    entry.st_mode, entry.st_size = pyfuse3.ModeT(mode), size
    await kernel.operations.setattr(
        await kernel.inode(path), entry, cast("pyfuse3.SetattrFields", fields), None, context()
    )


async def test_truncating_and_touching_a_control_file_means_nothing(kernel: Kernel) -> None:
    before = await kernel.read(f"{ITEM}/config.xml")
    for fields in (Fields(update_size=True), Fields(update_mtime=True)):
        await set_attributes(kernel, f"{ITEM}/config.xml", fields)
        await set_attributes(kernel, f"{POOL}/status", fields)
    assert await kernel.read(f"{ITEM}/config.xml") == before


async def test_chmod_of_an_item_changes_the_real_directory_and_of_a_file_nothing(kernel: Kernel) -> None:
    await set_attributes(kernel, ITEM, Fields(update_mode=True), mode=0o40711)
    assert kernel.host.trees["/storage/pools/tank"].info("web").mode & 0o7777 == 0o711
    with denied(errno.EPERM):
        await set_attributes(kernel, f"{ITEM}/status", Fields(update_mode=True), mode=0o777)
    with denied(errno.EPERM):
        await set_attributes(kernel, f"{POOL}/items", Fields(update_mode=True), mode=0o777)


async def test_what_there_is_none_of_is_a_clean_refusal(kernel: Kernel) -> None:
    name, items = pyfuse3.FileNameT(b"x"), await kernel.inode(f"{POOL}/items")
    version = await kernel.inode("version")
    with denied(errno.EPERM):
        await kernel.operations.mknod(items, name, pyfuse3.ModeT(0o644), 0, context())
    with denied(errno.EPERM):
        await kernel.operations.symlink(items, name, pyfuse3.FileNameT(b"/etc"), context())
    with denied(errno.EPERM):
        await kernel.operations.link(version, items, name, context())
    for path in (ITEM, f"{ITEM}/snapshots", "", f"{POOL}/trash"):
        with denied(errno.EPERM):
            await kernel.operations.create(
                await kernel.inode(path), name, pyfuse3.ModeT(0o644), pyfuse3.FlagT(os.O_WRONLY), context()
            )
