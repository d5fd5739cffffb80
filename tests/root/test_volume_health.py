"""Volumes that were not unmounted, are damaged, or come from elsewhere: what a start makes of them."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.volume_pools import FORMATS, MARKS, SIZE, define, image_of, loops_of, root_of
from support.daemon import Daemon
from support.machine import is_mounted
from support.needs import needs_program
from support.shell import run

pytestmark = MARKS


@pytest.mark.parametrize(
    ("format", "offset", "check"),
    # The descriptors of ext4's groups, the roots of xfs' first trees, the pointers to btrfs' roots.
    [("ext4", 4096, "e2fsck -f"), ("xfs", 2 * 4096, "xfs_repair"), ("btrfs", 65536 + 0x50, "btrfs check")],
)
def test_a_damaged_file_system_lets_its_pool_fail_with_what_helps(
    daemon: Daemon, format: str, offset: int, check: str
) -> None:
    pool, image = define(daemon, "tank", format), image_of(daemon, "tank")
    request(pool / "status", "start build")
    request(pool / "status", "stop")
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * (16 if format == "btrfs" else 8 * 4096))
    for verb in ("start", "start build"):
        with refused(errno.EUCLEAN, errno.EINVAL, errno.EIO):
            request(pool / "status", verb)
        assert "cannot be mounted" in last_error(pool)
        assert f"{check} {image}" in last_error(pool)
        assert "the check says: " in last_error(pool)
        assert value(pool / "status") == "failed"
    assert "cannot be mounted" in (pool / "info").read_text()
    assert loops_of(daemon) == []


def places_of_damage(image: Path, what: str) -> list[int]:
    """Where in the image the root directory's inode lies, or the log, in bytes; twice with btrfs."""
    if what == "ext4's journal":
        return [int(run("debugfs", "-R", "bmap <8> 0", image).stdout) * 4096]
    if what == "ext4's root":
        found = run("debugfs", "-R", "imap <2>", image).stdout
        block, offset = re.search(r"block (\d+), offset (0x[0-9a-f]+)", found).groups()  # type: ignore[union-attr]
        return [int(block) * 4096 + int(offset, 16)]
    if what.startswith("xfs"):
        field, unit = ("logstart", "fsblock") if what == "xfs' log" else ("rootino", "ino")
        number = run("xfs_db", "-r", "-c", "sb 0", "-c", f"p {field}", image).stdout.split()[-1]
        return [int(run("xfs_db", "-r", "-c", f"convert {unit} {number} byte", image).stdout.split()[0], 0)]
    tree = run("btrfs", "inspect-internal", "dump-super", image).stdout
    root = re.search(r"^root\s+(\d+)", tree, re.MULTILINE)
    assert root is not None
    # btrfs_header: checksum and UUID, then where it is. No program maps that where quotas are simple.
    node, here = 16 * 1024, int(root[1]).to_bytes(8, "little")
    with image.open("rb") as file:
        found = [at for at in range(0, SIZE, node) if os.pread(file.fileno(), 8, at + 0x30) == here]
    assert found
    return found


@needs_program("debugfs", "xfs_db", "btrfs")
@pytest.mark.parametrize("what", ["ext4's root", "ext4's journal", "xfs' root", "xfs' log", "btrfs' root"])
def test_a_damaged_root_or_log_is_never_mounted(daemon: Daemon, what: str) -> None:
    format = what.partition("'")[0]
    pool, image = define(daemon, "tank", format), image_of(daemon, "tank")
    request(pool / "status", "start build")
    request(pool / "status", "stop")
    with image.open("r+b") as file:
        for offset in places_of_damage(image, what):
            file.seek(offset)
            file.write(b"\xff" * (128 if what == "ext4's root" else 64 * 1024))
    with refused(errno.EUCLEAN, errno.EBADMSG, errno.EINVAL, errno.EIO):
        request(pool / "status", "start")
    assert "the check says: " in last_error(pool)
    assert value(pool / "status") == "failed"
    assert not is_mounted(root_of(pool))
    assert loops_of(daemon) == []


def copy_of_mounted(pool: Path, image: Path) -> None:
    """Put the image there as a power cut would leave it: written, and not unmounted."""
    run("sync", "-f", root_of(pool))
    aside = image.with_name("aside")
    run("cp", "--sparse=always", image, aside)
    request(pool / "status", "stop")
    # The same file, so that it counts as the one that was made.
    run("cp", "--sparse=always", aside, image)
    aside.unlink()


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_not_unmounted_is_whole_after_its_next_start(daemon: Daemon, format: str) -> None:
    pool, image = define(daemon, "tank", format), image_of(daemon, "tank")
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    (pool / "items" / "web" / "data" / "file").write_text("kept")
    copy_of_mounted(pool, image)
    request(pool / "status", "start")
    assert (pool / "items" / "web" / "data" / "file").read_text() == "kept"
    request(pool / "status", "stop")


@needs_program("debugfs", "dumpe2fs")
def test_errors_that_only_the_journal_tells_of_keep_a_damaged_file_system_from_being_mounted(
    daemon: Daemon,
) -> None:
    pool, image = define(daemon, "tank", "ext4"), image_of(daemon, "tank")
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    # What is changed while it is mounted again is in the journal, and mended by its replay alone.
    request(pool / "status", "stop")
    request(pool / "status", "start")
    (pool / "items" / "mail").mkdir()
    copy_of_mounted(pool, image)
    assert "needs_recovery" in run("dumpe2fs", "-h", image).stdout
    block = int(run("debugfs", "-R", "bmap web 0", image).stdout)
    note_error_in_journal(image)
    with image.open("r+b") as file:
        file.seek(block * 4096)
        file.write(b"\xff" * 4096)
    with refused(errno.EUCLEAN):
        request(pool / "status", "start")
    assert "is damaged; the check says: " in last_error(pool)
    assert value(pool / "status") == "failed"
    assert not is_mounted(root_of(pool))


def crc32c(data: bytes) -> int:
    """As jbd2 takes it of its superblock: begun with all ones, and not inverted at the end."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


def note_error_in_journal(image: Path) -> None:
    """As the kernel does at an error: s_errno of the journal's superblock (include/linux/jbd2.h)."""
    place = int(run("debugfs", "-R", "bmap <8> 0", image).stdout) * 4096
    with image.open("r+b") as file:
        file.seek(place)
        block = bytearray(file.read(1024))
        assert block[:4] == b"\xc0\x3b\x39\x98"
        block[0x20:0x24] = (-errno.EIO).to_bytes(4, "big", signed=True)
        block[0xFC:0x100] = bytes(4)
        block[0xFC:0x100] = crc32c(block).to_bytes(4, "big")
        file.seek(place)
        file.write(block)


@pytest.mark.parametrize(
    ("format", "options"), [("xfs", ("-s", "size=512")), ("ext4", ("-b", "1024"))], ids=["xfs", "ext4"]
)
def test_an_image_that_was_made_for_small_sectors_gets_them(
    daemon: Daemon, format: str, options: tuple[str, ...]
) -> None:
    image = image_of(daemon, "tank")
    image.parent.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(SIZE)
    run(f"mkfs.{format}", "-q", *options, image)
    uuid = run("blkid", "-p", "-s", "UUID", "-o", "value", image).stdout.strip()
    pool = define(daemon, "tank", format, size=None, more=f"<uuid>{uuid}</uuid>")
    request(pool / "status", "start")
    (pool / "items" / "web").mkdir()
    request(pool / "status", "stop")
    assert loops_of(daemon) == []


@needs_program("tune2fs", "dumpe2fs")
def test_an_ext4_for_quota_says_what_to_do_where_the_kernel_has_none(daemon: Daemon) -> None:
    pool, image = define(daemon, "tank", "ext4"), image_of(daemon, "tank")
    request(pool / "status", "start build")
    request(pool / "status", "stop")
    if " project " in run("dumpe2fs", "-h", image).stdout:
        pytest.skip("the kernel has project quota")
    run("tune2fs", "-O", "quota,project", image)
    with refused(errno.EINVAL):
        request(pool / "status", "start")
    said = last_error(pool)
    assert "made for a kernel with quota" in said
    command = said.partition("with `")[2].partition("`")[0]
    assert command == f"tune2fs -O ^quota,^project {image}"
    run(*command.split())
    request(pool / "status", "start")
    request(pool / "status", "stop")


@needs_program("debugfs")
def test_errors_that_the_kernel_has_met_are_mended_before_it_is_mounted(daemon: Daemon) -> None:
    pool, image = define(daemon, "tank", "ext4"), image_of(daemon, "tank")
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    (pool / "items" / "web" / "data" / "file").write_text("kept")
    request(pool / "status", "stop")
    # As after an error: the kernel goes on mounting it. A count of links that is wrong is mended unasked.
    for command in ("set_super_value state 2", "set_inode_field web links_count 5"):
        run("debugfs", "-w", "-R", command, image)
    daemon.expect_log("has errors; it is checked")
    request(pool / "status", "start")
    assert (pool / "items" / "web" / "data" / "file").read_text() == "kept"
    request(pool / "status", "stop")
    assert "Filesystem state:         clean\n" in run("dumpe2fs", "-h", image).stdout
    run("e2fsck", "-f", "-n", image)


@needs_program("debugfs")
def test_errors_that_cannot_be_mended_let_the_pool_fail_in_the_words_of_the_check(daemon: Daemon) -> None:
    pool, image = define(daemon, "tank", "ext4"), image_of(daemon, "tank")
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    request(pool / "status", "stop")
    block = int(run("debugfs", "-R", "bmap web 0", image).stdout)
    run("debugfs", "-w", "-R", "set_super_value state 2", image)
    with image.open("r+b") as file:
        file.seek(block * 4096)
        file.write(b"\xff" * 4096)
    daemon.expect_log("has errors; it is checked")
    with refused(errno.EUCLEAN):
        request(pool / "status", "start")
    assert "is damaged; the check says: " in last_error(pool)
    assert f"mend it with `e2fsck -f {image}`" in last_error(pool)
    assert value(pool / "status") == "failed"
    assert not is_mounted(root_of(pool))
    assert loops_of(daemon) == []
    assert run("e2fsck", "-f", "-y", image, check=False).returncode == 1
    request(pool / "status", "start")
    request(pool / "status", "stop")
