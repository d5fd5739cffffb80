"""Inode numbers: one for each thing, none used twice, and nothing found that is gone."""

from __future__ import annotations

import errno
import stat

import pyfuse3
import pytest

from fspoolfs.ops import inodes

from .conftest import ITEM, POOL, Kernel, context


async def everything(kernel: Kernel, path: str = "") -> dict[str, int]:
    """Every path below `path` with its inode number, without following links."""
    directory = kernel.operations.inodes.directory(await kernel.inode(path))
    found = {path: int(await kernel.inode(path))}
    for name in directory.names():
        inside = f"{path}/{name}".lstrip("/")
        entry = await kernel.operations.lookup(
            await kernel.inode(path), pyfuse3.FileNameT(name.encode()), context()
        )
        if stat.S_ISDIR(entry.st_mode):
            found |= await everything(kernel, inside)
        else:
            found[inside] = entry.st_ino
    return found


async def test_every_path_has_an_inode_of_its_own_and_keeps_it(kernel: Kernel) -> None:
    await kernel.mkdir(f"{POOL}/items/other")
    await kernel.rmdir(f"{POOL}/items/other")
    found = await everything(kernel)
    assert len(set(found.values())) == len(found) > 40
    assert found[""] == pyfuse3.ROOT_INODE
    assert await everything(kernel) == found


async def test_lookup_and_getattr_agree(kernel: Kernel) -> None:
    for path, inode in (await everything(kernel)).items():
        parent, _, name = path.rpartition("/")
        seen = await kernel.operations.getattr(pyfuse3.InodeT(inode), context())
        if path:
            entry = await kernel.operations.lookup(
                await kernel.inode(parent), pyfuse3.FileNameT(name.encode()), context()
            )
            fields = ("st_ino", "st_mode", "st_uid", "st_gid", "st_nlink", "st_mtime_ns")
            assert [getattr(entry, one) for one in fields] == [getattr(seen, one) for one in fields], path
        assert seen.st_ino == inode


async def test_a_renamed_item_keeps_its_inode(kernel: Kernel) -> None:
    before = await kernel.inode(ITEM)
    await kernel.rename(ITEM, f"{POOL}/items/shop")
    assert await kernel.inode(f"{POOL}/items/shop") == before
    assert not await kernel.exists(ITEM)


async def test_a_number_is_never_given_again(kernel: Kernel) -> None:
    seen = set()
    for _ in range(5):
        await kernel.mkdir(f"{POOL}/items/again")
        seen.add(await kernel.inode(f"{POOL}/items/again"))
        await kernel.rmdir(f"{POOL}/items/again")
    assert len(seen) == 5


async def test_what_is_gone_is_stale_and_not_another(kernel: Kernel) -> None:
    kernel.service.events.listen(
        lambda event: kernel.operations.inodes.forget(event.number) if event.number else None
    )
    item, status = await kernel.inode(ITEM), await kernel.inode(f"{ITEM}/status")
    snapshots = await kernel.inode(f"{ITEM}/snapshots")
    await kernel.rmdir(ITEM)
    await kernel.mkdir(ITEM)
    for inode in (item, status, snapshots):
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await kernel.operations.getattr(inode, context())
        assert caught.value.errno == errno.ESTALE


async def test_a_file_is_no_directory(kernel: Kernel) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await kernel.operations.lookup(await kernel.inode("version"), pyfuse3.FileNameT(b"x"), context())
    assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize("position", [30, 63])
async def test_a_position_that_no_table_has_is_stale(position: int, kernel: Kernel) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await kernel.operations.getattr(inodes.of_row(0, position), context())
    assert caught.value.errno == errno.ESTALE


def test_positions_of_a_table_fit_beside_the_number() -> None:
    numbers = {inodes.of_row(number, position) for number in range(4) for position in range(64)}
    assert len(numbers) == 4 * 64
    assert min(numbers) == pyfuse3.ROOT_INODE


async def test_dot_and_dot_dot_lead_where_they_should(kernel: Kernel) -> None:
    async def look(path: str, name: bytes) -> int:
        entry = await kernel.operations.lookup(await kernel.inode(path), pyfuse3.FileNameT(name), context())
        return int(entry.st_ino)

    assert await look(ITEM, b".") == await kernel.inode(ITEM)
    assert await look(ITEM, b"..") == await kernel.inode(f"{POOL}/items")
    assert await look("", b"..") == pyfuse3.ROOT_INODE


async def test_nothing_is_remembered_of_what_came_and_went(kernel: Kernel) -> None:
    table = kernel.operations.inodes
    kernel.service.events.listen(lambda event: table.forget(event.number) if event.number else None)
    await everything(kernel)
    before = len(table._directories)
    for _ in range(20):
        await kernel.mkdir(f"{POOL}/items/x")
        await everything(kernel)
        await kernel.rmdir(f"{POOL}/items/x")
        await everything(kernel)
        for name in list(kernel.service.pools.find("tank").trash):
            await kernel.rmdir(f"{POOL}/trash/{name}")
    assert len(table._directories) <= before
