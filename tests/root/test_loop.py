"""Loop devices: attached once, found by their file, as large as it is, and gone with their last user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs.system import loop
from support.machine import loop_devices
from support.needs import needs_root

pytestmark = [needs_root, pytest.mark.required]

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "image"
    path.write_bytes(bytes(MIB))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def shown(directory: Path) -> list[str]:
    return [device.device for device in loop_devices() if device.file.startswith(f"{directory}/")]


def test_a_device_is_found_by_its_file_and_goes_with_its_last_user(file: int, tmp_path: Path) -> None:
    assert loop.unusable() == ""
    assert loop.find(os.fstat(file)) is None
    device = loop.attach(file)
    # Wherever the file is moved.
    (tmp_path / "image").rename(tmp_path / "moved")
    found = loop.find(os.fstat(file))
    assert found is not None
    assert os.fstat(found).st_rdev == os.fstat(device).st_rdev
    assert loop.backing(device) == (os.fstat(file).st_dev, os.fstat(file).st_ino)
    os.close(device)
    assert len(shown(tmp_path)) == 1
    os.close(found)
    assert shown(tmp_path) == []


def test_a_device_follows_the_size_of_its_file(file: int) -> None:
    device = loop.attach(file)
    try:
        os.ftruncate(file, 2 * MIB)
        assert os.lseek(device, 0, os.SEEK_END) == MIB
        loop.update_size(device)
        assert os.lseek(device, 0, os.SEEK_END) == 2 * MIB
        os.pwrite(device, b"x" * 4096, 2 * MIB - 4096)
        os.fsync(device)
        assert os.pread(file, 1, 2 * MIB - 1) == b"x"
    finally:
        os.close(device)


def test_detaching_is_done_when_the_last_user_closes_and_can_be_repeated(file: int, tmp_path: Path) -> None:
    device = loop.attach(file)
    try:
        loop.detach(device)
        loop.detach(device)
    finally:
        os.close(device)
    assert shown(tmp_path) == []


def test_many_files_get_devices_of_their_own(tmp_path: Path) -> None:
    devices = []
    try:
        for number in range(12):
            path = tmp_path / str(number)
            path.write_bytes(bytes(MIB))
            fd = os.open(path, os.O_RDWR)
            devices.append(loop.attach(fd))
            os.close(fd)
        assert len({os.fstat(device).st_rdev for device in devices}) == 12
    finally:
        for device in devices:
            os.close(device)
    assert shown(tmp_path) == []
