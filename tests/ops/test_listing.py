"""Listing directories: in pieces, while they change, with what the kernel may remember."""

from __future__ import annotations

import errno
from typing import cast

import pyfuse3
import pytest
from pyfuse3 import FileNameT, ReaddirToken

from .conftest import ITEM, POOL, Kernel, Listed, context


async def names(kernel: Kernel, path: str, buffer: Listed, *, at_a_time: int = 1 << 30) -> list[str]:
    """List as the kernel does: again and again from where the last piece ended, until one is empty."""
    handle = await kernel.operations.opendir(await kernel.inode(path), context())
    start = len(buffer.names)
    while True:
        before, buffer.room = len(buffer.names), at_a_time
        await kernel.operations.readdir(handle, before - start, cast("ReaddirToken", buffer.token))
        if len(buffer.names) == before:
            break
    await kernel.operations.releasedir(handle)
    return buffer.names[start:]


async def test_a_directory_shows_files_and_directories(kernel: Kernel, buffer: Listed) -> None:
    assert set(await names(kernel, "", buffer)) == {
        *("define", "events", "features", "last_error", "metrics", "version", "pools"),
    }
    assert await names(kernel, "pools", buffer) == ["tank"]
    assert await names(kernel, f"{POOL}/items", buffer) == ["web"]
    assert await names(kernel, f"{ITEM}/snapshots", buffer) == []
    assert await names(kernel, f"{POOL}/trash", buffer) == []


async def test_all_that_is_listed_can_be_looked_up(kernel: Kernel, buffer: Listed) -> None:
    for path in ("", "pools", POOL, f"{POOL}/items", ITEM):
        for name in await names(kernel, path, buffer):
            assert await kernel.exists(f"{path}/{name}"), (path, name)


@pytest.mark.parametrize("at_a_time", [1, 2, 7])
async def test_pieces_make_the_whole(at_a_time: int, kernel: Kernel, buffer: Listed) -> None:
    for number in range(20):
        await kernel.mkdir(f"{POOL}/items/i{number}")
    expected = {"web", *(f"i{number}" for number in range(20))}
    found = await names(kernel, f"{POOL}/items", buffer, at_a_time=at_a_time)
    assert len(found) == len(expected)
    assert set(found) == expected


async def test_what_stays_is_listed_once_while_others_come_and_go(kernel: Kernel, buffer: Listed) -> None:
    for number in range(10):
        await kernel.mkdir(f"{POOL}/items/i{number}")
    handle = await kernel.operations.opendir(await kernel.inode(f"{POOL}/items"), context())
    buffer.room = 3
    await kernel.operations.readdir(handle, 0, cast("ReaddirToken", buffer.token))
    for number in range(0, 10, 2):
        await kernel.rmdir(f"{POOL}/items/i{number}")
    await kernel.mkdir(f"{POOL}/items/new")
    buffer.room = 1 << 30
    await kernel.operations.readdir(handle, 3, cast("ReaddirToken", buffer.token))
    stayed = [name for name in buffer.names if name == "web" or name in {f"i{n}" for n in range(1, 10, 2)}]
    assert sorted(stayed) == ["i1", "i3", "i5", "i7", "i9", "web"]
    assert not {"i4", "i6", "i8"} & set(buffer.names[3:])


async def test_rewinding_lists_anew(kernel: Kernel, buffer: Listed) -> None:
    handle = await kernel.operations.opendir(await kernel.inode(f"{POOL}/items"), context())
    for expected in (["web"], ["web", "new"]):
        buffer.names.clear()
        await kernel.operations.readdir(handle, 0, cast("ReaddirToken", buffer.token))
        assert buffer.names == expected
        if expected == ["web"]:
            await kernel.mkdir(f"{POOL}/items/new")


async def test_a_file_is_not_listed(kernel: Kernel) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await kernel.operations.opendir(await kernel.inode("version"), context())
    assert caught.value.errno == errno.ENOTDIR


async def test_names_that_are_not_utf_8_are_looked_up_and_refused_cleanly(kernel: Kernel) -> None:
    items = await kernel.inode(f"{POOL}/items")
    for name in (b"\xff\xfe", b"a\nb", b"x" * 4000, b"\xe2\x80\xa8"):
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await kernel.operations.lookup(items, FileNameT(name), context())
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await kernel.operations.mkdir(items, FileNameT(name), pyfuse3.ModeT(0o755), context())
        assert caught.value.errno == errno.EINVAL
        # The sentence that names it is text for everyone.
        assert (await kernel.read(f"{POOL}/last_error")).decode()


async def test_directories_are_kept_by_the_kernel_and_the_sizes_of_files_are_not(kernel: Kernel) -> None:
    async def entry(path: str) -> pyfuse3.EntryAttributes:
        parent, _, name = path.rpartition("/")
        return await kernel.operations.lookup(await kernel.inode(parent), FileNameT(name.encode()), context())

    assert (await entry(ITEM)).entry_timeout >= 60
    assert (await entry(ITEM)).attr_timeout >= 60
    assert (await entry(f"{ITEM}/status")).attr_timeout == 0
    await kernel.rmdir(ITEM)
    # Moved into items/, the kernel would go on believing that it is what it was.
    assert (await entry(f"{POOL}/trash/web")).entry_timeout == 0
