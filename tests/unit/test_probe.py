"""What is told of a device: by blkid's words, and by the superblocks that are read directly."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest

from fspoolfs.system import probe, superblocks
from fspoolfs.system.probe import Content
from support.needs import needs_program
from support.shell import run

POOL = UUID("cb07b799-8e03-485c-aaa0-7c88f60b37b0")
SIZE = 320 << 20

MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-L", "tank", "-U", str(POOL)),
    "xfs": ("mkfs.xfs", "-q", "-L", "tank", "-m", f"uuid={POOL}"),
    "btrfs": ("mkfs.btrfs", "-q", "-L", "tank", "-U", str(POOL)),
}
FORMATS = [pytest.param(name, marks=needs_program(argv[0], "blkid", "wipefs")) for name, argv in MAKE.items()]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def superblock(image: Path) -> superblocks.Superblock | None:
    fd = os.open(image, os.O_RDONLY)
    try:
        return superblocks.read(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_system_is_told_with_its_label_and_uuid_until_it_is_erased(image: Path, format: str) -> None:
    assert probe.content(str(image)) is None
    assert superblock(image) is None
    run(*MAKE[format], image)
    found = probe.content(str(image))
    assert found == Content(type=format, label="tank", uuid=str(POOL))
    assert found.known_uuid == POOL
    assert str(found).endswith(f"{format} file system, label 'tank', UUID {POOL}")
    block = superblock(image)
    assert block is not None
    assert (block.type, block.uuid) == (format, POOL)
    assert SIZE - (1 << 20) < block.size <= SIZE
    probe.erase(str(image))
    assert probe.content(str(image)) is None


@pytest.mark.parametrize("format", FORMATS)
def test_a_grown_image_is_larger_than_its_file_system(image: Path, format: str) -> None:
    run(*MAKE[format], image)
    os.truncate(image, 2 * SIZE)
    block = superblock(image)
    assert block is not None
    assert block.size <= SIZE


@needs_program("blkid")
def test_other_signatures_count_too(image: Path) -> None:
    with image.open("r+b") as file:
        # A label of a physical volume of LVM 2, in the second sector.
        file.seek(512)
        file.write(b"LABELONE" + bytes(16) + b"LVM2 001" + b"x" * 32)
    found = probe.content(str(image))
    assert found is None or found.type == "LVM2_member"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("DEVNAME=/dev/x\nPTUUID=1\nPTTYPE=gpt\n", "a partition table (gpt)"),
        ("TYPE=vfat\nUUID=12AB-34CD\nUSAGE=filesystem\n", "a vfat file system, UUID 12AB-34CD"),
        ("TYPE=LVM2_member\nUUID=x\nUSAGE=raid\n", "an LVM2_member signature, UUID x"),
        ("TYPE=xfs\nLABEL=my\\ data\nUSAGE=filesystem\n", "an xfs file system, label 'my data'"),
    ],
)
def test_content_is_told_in_words(text: str, told: str) -> None:
    assert str(probe.parse(text)) == told


def test_the_entry_of_a_partition_is_not_its_content() -> None:
    assert probe.parse("DEVNAME=/dev/x1\nPART_ENTRY_SCHEME=gpt\nPART_ENTRY_NUMBER=1\n") is None


def test_a_short_uuid_is_nobody_s() -> None:
    assert Content(type="vfat", uuid="12AB-34CD").known_uuid is None


@pytest.mark.parametrize("size", [0, 1, 512, 1500, 4096, 70000])
def test_a_device_of_any_size_can_be_looked_at(tmp_path: Path, size: int) -> None:
    path = tmp_path / "small"
    path.write_bytes(os.urandom(size))
    superblock(path)
