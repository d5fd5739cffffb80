"""What editors do beside a document: temporary files, renaming one into place, removing and creating."""

from __future__ import annotations

import errno
import os

import pyfuse3
import pytest

from fspoolfs.tree import scratch

from .conftest import ITEM, POOL, Kernel, context

DOCUMENT = b"<fs><name>web</name><permissions><mode>0700</mode></permissions></fs>\n"
CONFIG = f"{ITEM}/config.xml"


def denied(number: int) -> pytest.RaisesExc[pyfuse3.FUSEError]:
    return pytest.RaisesExc(pyfuse3.FUSEError, check=lambda error: error.errno == number)


@pytest.mark.parametrize(
    "name", ["sedAb3xYz", "config.xml~", ".config.xml.swp", "4913", "#config.xml#", "XXabc123"]
)
async def test_a_temporary_file_holds_what_was_written(name: str, kernel: Kernel) -> None:
    path = f"{ITEM}/{name}"
    await kernel.put(path, b"text")
    assert await kernel.read(path) == b"text"
    assert (await kernel.stat(path)).st_size == 4
    await kernel.unlink(path)
    assert not await kernel.exists(path)


@pytest.mark.parametrize("name", ["data2", "notes.txt", "x", ".hidden", "config.xmlx", "status~~"])
async def test_other_files_are_not_made(name: str, kernel: Kernel) -> None:
    with denied(errno.EPERM):
        await kernel.create(f"{ITEM}/{name}")


async def test_one_renamed_over_the_document_is_a_definition(kernel: Kernel) -> None:
    await kernel.put(f"{ITEM}/sedAb3xYz", DOCUMENT)
    await kernel.rename(f"{ITEM}/sedAb3xYz", CONFIG)
    assert b"0700" in await kernel.read(CONFIG)
    assert not await kernel.exists(f"{ITEM}/sedAb3xYz")


@pytest.mark.parametrize("data", [b"", b"  \n", b"<fs>", b"<fs><name>other</name></fs>", b"no XML"])
async def test_a_bad_one_leaves_both_as_they_were(data: bytes, kernel: Kernel) -> None:
    before = await kernel.read(CONFIG)
    await kernel.put(f"{ITEM}/sedAb3xYz", data)
    with denied(errno.EINVAL):
        await kernel.rename(f"{ITEM}/sedAb3xYz", CONFIG)
    assert await kernel.read(CONFIG) == before
    assert await kernel.read(f"{ITEM}/sedAb3xYz") == data
    assert await kernel.read(f"{ITEM}/last_error")


async def test_the_inode_of_the_temporary_file_goes_on_as_the_document(kernel: Kernel) -> None:
    """The kernel believes that the renamed file is the one of that name now."""
    await kernel.put(f"{ITEM}/sedAb3xYz", DOCUMENT)
    inode = await kernel.inode(f"{ITEM}/sedAb3xYz")
    await kernel.rename(f"{ITEM}/sedAb3xYz", CONFIG)
    entry = await kernel.operations.getattr(inode, context())
    assert entry.st_size == len(await kernel.read(CONFIG))


async def test_a_removed_document_defines_on_and_comes_back_when_created(kernel: Kernel) -> None:
    await kernel.unlink(CONFIG)
    assert not await kernel.exists(CONFIG)
    assert await kernel.exists(ITEM)
    await kernel.put(CONFIG, DOCUMENT)
    assert b"0700" in await kernel.read(CONFIG)


async def test_a_removed_document_comes_back_by_itself(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "AWAY", 0.0)
    await kernel.unlink(CONFIG)
    assert await kernel.exists(CONFIG)


async def test_a_backup_of_the_document_is_not_made_by_renaming_it(kernel: Kernel) -> None:
    """Editors that try it then write in place."""
    with denied(errno.EPERM):
        await kernel.rename(CONFIG, f"{ITEM}/config.xml~")
    assert await kernel.exists(CONFIG)


async def test_temporary_files_are_of_their_directory(kernel: Kernel) -> None:
    await kernel.mkdir(f"{POOL}/items/other")
    await kernel.put(f"{ITEM}/sedAb3xYz", DOCUMENT)
    assert not await kernel.exists(f"{POOL}/items/other/sedAb3xYz")
    for target in (f"{POOL}/items/other/config.xml", f"{POOL}/items/other/sedAb3xYz", f"{POOL}/config.xml"):
        with denied(errno.EPERM):
            await kernel.rename(f"{ITEM}/sedAb3xYz", target)
    await kernel.rename(f"{ITEM}/sedAb3xYz", f"{ITEM}/config.xml~")
    assert await kernel.read(f"{ITEM}/config.xml~") == DOCUMENT


async def test_only_temporary_files_and_documents_are_removed(kernel: Kernel) -> None:
    for path in (f"{ITEM}/status", f"{ITEM}/data", f"{POOL}/uuid", "version", "define"):
        with denied(errno.EPERM):
            await kernel.unlink(path)
        assert await kernel.exists(path)
    with denied(errno.ENOENT):
        await kernel.unlink(f"{ITEM}/sedAb3xYz")


async def test_a_directory_takes_few_and_all_of_them_together_take_many(kernel: Kernel) -> None:
    for number in range(scratch.PER_DIRECTORY):
        await kernel.put(f"{ITEM}/sedAbcde{number}", b"")
    with denied(errno.ENOSPC):
        await kernel.create(f"{ITEM}/sedAbcdeX")
    await kernel.unlink(f"{ITEM}/sedAbcde0")
    await kernel.put(f"{ITEM}/sedAbcdeX", b"")
    await kernel.put(f"{POOL}/sedAbcde0", b"")


async def test_they_are_small(kernel: Kernel) -> None:
    handle = await kernel.create(f"{ITEM}/sedAb3xYz")
    await kernel.operations.write(handle, 0, b"x" * (1 << 20))
    with denied(errno.EFBIG):
        await kernel.operations.write(handle, scratch.LARGEST - 1, b"xx")
    with denied(errno.EFBIG):
        await kernel.operations.write(handle, 1 << 60, b"x")
    assert (await kernel.stat(f"{ITEM}/sedAb3xYz")).st_size == 1 << 20


async def test_what_nobody_uses_any_more_makes_room(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    open_one = await kernel.create(f"{ITEM}/sedAbcde0")
    for number in range(1, scratch.PER_DIRECTORY):
        await kernel.put(f"{ITEM}/sedAbcde{number}", b"")
    monkeypatch.setattr(scratch, "KEPT", -1.0)
    await kernel.put(f"{ITEM}/sedAbcdeX", b"")
    assert await kernel.exists(f"{ITEM}/sedAbcde0"), "it is open"
    assert not await kernel.exists(f"{ITEM}/sedAbcde1")
    await kernel.operations.release(open_one)


async def test_they_belong_to_who_made_them_and_nobody_else_renames_one_over_the_document(
    kernel: Kernel,
) -> None:
    await kernel.put(f"{ITEM}/sedAb3xYz", DOCUMENT, uid=1001)
    assert (await kernel.stat(f"{ITEM}/sedAb3xYz")).st_uid == 1001
    with denied(errno.EACCES):
        await kernel.rename(f"{ITEM}/sedAb3xYz", CONFIG, uid=1001)
    assert b"0755" in await kernel.read(CONFIG)


async def test_truncating_and_writing_in_place(kernel: Kernel) -> None:
    path = f"{ITEM}/config.xml~"
    await kernel.put(path, b"long text")
    handle = await kernel.open(path, os.O_WRONLY | os.O_TRUNC)
    await kernel.operations.write(handle, 2, b"x")
    assert await kernel.read(path) == b"\0\0x"


async def test_items_and_names_of_editors_do_not_meet(kernel: Kernel) -> None:
    """An item may be called as a temporary file is; items/ takes no files."""
    await kernel.mkdir(f"{POOL}/items/sedAb3xYz")
    with denied(errno.EPERM):
        await kernel.create(f"{POOL}/items/4913")
    await kernel.mkdir(f"{POOL}/items/4913")


async def test_nothing_is_exchanged(kernel: Kernel) -> None:
    await kernel.mkdir(f"{POOL}/items/other")
    with denied(errno.EINVAL):
        await kernel.rename(ITEM, f"{POOL}/items/other", flags=pyfuse3.RENAME_EXCHANGE)
