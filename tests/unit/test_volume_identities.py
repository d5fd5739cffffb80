"""One volume under several names is one, whichever provider has it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fspoolfs.backends.volumes.device import Devices
from fspoolfs.backends.volumes.images import Images
from fspoolfs.backends.volumes.lvm import LogicalVolumes
from fspoolfs.model.definitions import PoolDefinition, PoolSource
from unit.test_libvirt_volumes import POOL, Fake, fake

__all__ = ["fake"]


def at(device: object) -> PoolDefinition:
    return replace(POOL, source=PoolSource(device=str(device)))


def image(pool: str, volume: str) -> PoolDefinition:
    return replace(POOL, source=PoolSource(pool=pool, volume=volume))


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("type", ["dir", "fs"])
def test_an_image_is_one_with_libvirts_volume_of_its_path(
    fake: Fake, tmp_path: Path, type: str, there: bool
) -> None:
    """`fake` has its pool in tmp_path/images, to which the images' directory leads."""
    (tmp_path / "images").mkdir()
    storage = tmp_path / "storage"
    (storage / "volumes").mkdir(parents=True)
    (storage / "volumes" / "linked").symlink_to(tmp_path / "images")
    if there:
        (tmp_path / "images" / "vol1.img").touch()
    libvirt, _ = fake(type)
    images = Images(storage)
    called = replace(POOL, source=replace(POOL.source, volume="vol1.img"))
    assert libvirt.identity(called) == images.identity(image("linked", "vol1"))
    assert libvirt.identity(POOL) != images.identity(image("linked", "vol1"))
    assert images.identity(image("linked", "vol1")) != images.identity(image("images", "vol1"))


def test_libvirts_logical_volume_is_one_with_lvms(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libvirt, answers = fake("logical")
    monkeypatch.setattr(answers, "_pool", replace(answers._pool, target="/dev/no-group"))
    logical = replace(POOL, source=PoolSource(pool="no-group", provider="lvm", volume="vol1"))
    assert libvirt.identity(POOL) == LogicalVolumes().identity(logical)
    assert libvirt.identity(POOL) == Devices().identity(at("/dev/mapper/no--group-vol1"))


def test_a_file_with_two_names_is_one(tmp_path: Path) -> None:
    images = Images(tmp_path)
    one, two, other = (image("images", name) for name in ("one", "two", "other"))
    (tmp_path / "volumes" / "images").mkdir(parents=True)
    for name in ("one", "other"):
        (tmp_path / "volumes" / "images" / f"{name}.img").touch()
    os.link(images.place(one), images.place(two))
    assert images.identity(one) == images.identity(two)
    assert images.identity(one) != images.identity(other)


@pytest.mark.parametrize("type", ["dir", "logical"])
def test_making_a_volume_changes_nothing(fake: Fake, type: str) -> None:
    libvirt, _ = fake(type)
    before = libvirt.identity(POOL)
    libvirt.create(POOL)
    assert libvirt.identity(POOL) == before


def test_while_libvirt_says_nothing_the_names_have_to_do(fake: Fake) -> None:
    libvirt, _ = fake("iscsi")
    unknown = replace(POOL, source=replace(POOL.source, pool="nowhere"))
    assert libvirt.identity(POOL) == libvirt.identity(replace(POOL, name="other"))
    assert len({libvirt.identity(POOL), libvirt.identity(unknown)}) == 2
