"""Volumes of libvirt's pools over answers that a test has made up: what is made, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from fspoolfs.backends.source import BuildMode
from fspoolfs.backends.volume import VolumeSource
from fspoolfs.backends.volumes.libvirt import LibvirtVolumes
from fspoolfs.errors import FspoolError, InactiveError, InvalidError, NotFoundError, UnsupportedError
from fspoolfs.model import documents
from fspoolfs.model.definitions import PoolDefinition, PoolSource, PoolType
from fspoolfs.progress import Progress
from fspoolfs.system.libvirt_storage import StoragePool, StorageVolume

SIZE = 1 << 20
POOL = PoolDefinition(
    name="tank",
    type=PoolType.VOLUME,
    uuid=UUID(int=1),
    capacity=SIZE - 1,
    source=PoolSource(pool="default", provider="libvirt", volume="vol1"),
)


class OnePool:
    """Answers instead of libvirt: a pool of some type, and the volume in it, if there is one."""

    def __init__(self, type: str, target: Path, *, active: bool = True) -> None:
        self._pool = StoragePool(name="default", type=type, active=active, target=str(target))
        self.answer: StorageVolume | None = None
        self.made: list[bool] = []
        self.changed: list[str] = []

    def pool(self, name: str) -> StoragePool | None:
        return self._pool if name == "default" else None

    def volume(self, pool: str, name: str) -> StorageVolume | None:
        return self.answer

    def create(self, pool: str, name: str, capacity: int, *, sparse: bool) -> None:
        assert capacity == SIZE
        self.made.append(sparse)
        self.answer = self.made_up("block" if self._pool.type == "logical" else "file", "raw")

    def made_up(self, kind: str, format: str) -> StorageVolume:
        path = f"{self._pool.target}/vol1"
        return StorageVolume(key=path, path=path, kind=kind, format=format, capacity=SIZE, allocation=SIZE)

    def resize(self, pool: str, name: str, capacity: int, *, shrink: bool) -> None:
        self.changed.append("resize")

    def delete(self, pool: str, name: str) -> None:
        self.changed.append("delete")


class Fake:
    """A provider over one pool of libvirt's."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._monkeypatch = monkeypatch

    def __call__(self, type: str, *, active: bool = True) -> tuple[LibvirtVolumes, OnePool]:
        volumes = LibvirtVolumes(self._directory, "test:///default")
        answers = OnePool(type, self._directory / "images", active=active)
        self._monkeypatch.setattr(volumes, "_storage", answers)
        self._monkeypatch.setattr(volumes, "unusable", lambda: "")
        return volumes, answers


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(tmp_path, monkeypatch)


@pytest.mark.parametrize(("type", "sparse"), [("dir", True), ("fs", True), ("logical", False)])
def test_volumes_of_logical_pools_are_never_sparse(fake: Fake, type: str, sparse: bool) -> None:
    volumes, answers = fake(type)
    assert volumes.create(POOL) is True
    assert answers.made == [sparse]
    assert volumes.create(POOL) is False, "it is there now"


def everything_is_refused(
    volumes: LibvirtVolumes, answers: OnePool, kind: type[FspoolError], words: str, directory: Path
) -> None:
    """By the provider and by the source over it, before anything is made, changed or noted."""
    source = VolumeSource(directory, [volumes])
    definition = replace(POOL, target=str(directory / "target"))
    for act in (
        lambda: volumes.create(definition),
        lambda: volumes.size(definition),
        lambda: volumes.place(definition),
        lambda: volumes.grow(definition, 2 * SIZE),
        lambda: volumes.shrink(definition, SIZE // 2),
        lambda: volumes.open(definition).__enter__(),
        lambda: source.build(definition, BuildMode.NO_OVERWRITE, Progress()),
        lambda: source.build(definition, BuildMode.OVERWRITE, Progress()),
        lambda: source.attach(definition, Progress()),
    ):
        with pytest.raises(kind, match=words):
            act()
    volumes.remove(definition)
    volumes.release(definition)
    assert (answers.made, answers.changed) == ([], [])
    assert not (directory / "target").exists()
    assert [path for path in directory.rglob("*") if path.is_file()] == []


#: All that libvirt has besides those that are used: virStoragePoolType in its storage_conf.c.
@pytest.mark.parametrize(
    "type",
    [
        *("netfs", "disk", "iscsi", "iscsi-direct", "scsi", "mpath", "rbd", "sheepdog", "gluster", "zfs"),
        *("vstorage", ""),
    ],
)
def test_pools_of_other_types_are_refused(
    fake: Fake, tmp_path: Path, type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VolumeSource, "unusable", lambda self: "")
    volumes, answers = fake(type)
    words = f"libvirt's pool default is of type '{type}'; volumes of pools of type dir, fs and logical"
    everything_is_refused(volumes, answers, UnsupportedError, words, tmp_path)


@pytest.mark.parametrize(
    ("kind", "format"),
    [
        *(("file", format) for format in ("qcow2", "qcow", "vmdk", "vdi", "iso", "luks", "dir", "unknown")),
        *(("other", format) for format in ("raw", "dir")),
        ("block", "qcow2"),
    ],
)
def test_volumes_that_are_not_raw_are_refused(
    fake: Fake, tmp_path: Path, kind: str, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VolumeSource, "unusable", lambda self: "")
    volumes, answers = fake("dir")
    answers.answer = answers.made_up(kind, format)
    words = f"of kind '{kind}' and format '{format}'; only raw volumes"
    everything_is_refused(volumes, answers, InvalidError, words, tmp_path)


def test_pools_that_are_not_there_or_not_active_are_refused(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VolumeSource, "unusable", lambda self: "")
    volumes, answers = fake("dir", active=False)
    everything_is_refused(volumes, answers, InactiveError, "virsh pool-start default", tmp_path)
    with pytest.raises(NotFoundError, match="libvirt has no storage pool nowhere"):
        volumes.create(replace(POOL, source=replace(POOL.source, pool="nowhere")))


@pytest.mark.parametrize("name", ["a/b", "../vol", "/dev/sda", "a&#10;b", "a&#9;b", "a&#13;b", ".", "..", ""])
@pytest.mark.parametrize("place", ["pool", "volume"])
def test_names_that_lead_elsewhere_or_end_a_line_are_refused(place: str, name: str) -> None:
    named = {"pool": "default", "volume": "vol1"} | {place: name}
    with pytest.raises(InvalidError):
        documents.parse_pool(
            f"<fspool type='volume'><name>p</name><source><pool name='{named['pool']}' provider='libvirt'/>"
            f"<volume name='{named['volume']}'/></source></fspool>".encode()
        )


def test_a_note_of_another_volume_is_of_no_concern(fake: Fake) -> None:
    volumes, answers = fake("dir")
    assert volumes.create(POOL) is True
    other = replace(POOL, source=replace(POOL.source, volume="vol2"))
    assert volumes.identity(other) != volumes.identity(POOL)
    volumes.remove(other)
    assert answers.changed == [], "it was vol1 that was made here"
    volumes.remove(POOL)
    assert answers.changed == ["delete"]
