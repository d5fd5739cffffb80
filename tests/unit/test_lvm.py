"""Reports and names of LVM, and what is refused before any program of it runs."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from fspoolfs.backends.volumes import lvm as provider
from fspoolfs.backends.volumes.device import Devices
from fspoolfs.backends.volumes.lvm import LogicalVolumes
from fspoolfs.errors import BusyError, FspoolError, InvalidError, NotFoundError, StorageError
from fspoolfs.model.definitions import PoolDefinition, PoolSource, PoolType
from fspoolfs.system import command, lvm
from fspoolfs.system.command import Output

POOL = PoolDefinition(
    name="tank",
    type=PoolType.VOLUME,
    uuid=UUID(int=1),
    capacity=1 << 30,
    source=PoolSource(pool="vg0", provider="lvm", volume="data"),
    target="/srv/tank",
)
VOLUMES = b"""{"report": [{"lv": [
  {"vg_name": "vg0", "lv_name": "data", "lv_path": "/dev/vg0/data", "lv_size": "1073741824",
   "lv_tags": "one,fspoolfs.made.00000000-0000-0000-0000-000000000001", "lv_active": "active",
   "lv_layout": "linear", "pool_lv": "", "data_percent": ""},
  {"vg_name": "vg0", "lv_name": "thin", "lv_path": "/dev/vg0/thin", "lv_size": "2000",
   "lv_tags": "", "lv_active": "active", "lv_layout": "thin,sparse", "pool_lv": "tp",
   "data_percent": "25.00"},
  {"vg_name": "vg0", "lv_name": "tp", "lv_path": "", "lv_size": "4000",
   "lv_tags": "", "lv_active": "active", "lv_layout": "thin,pool", "pool_lv": "", "data_percent": "12.50"},
  {"vg_name": "vg0", "lv_name": "idle", "lv_path": "/dev/vg0/idle", "lv_size": "2000",
   "lv_tags": "", "lv_active": "", "lv_layout": "thin,sparse", "pool_lv": "tp", "data_percent": ""},
  {"vg_name": "vg0", "lv_name": "cached", "lv_path": "/dev/vg0/cached", "lv_size": "3000",
   "lv_tags": "", "lv_active": "active", "lv_layout": "cache", "pool_lv": "[c_cpool]",
   "data_percent": "5.00"}
]}]}"""
#: What the pool's volume is called while it is made.
NEW = "fspoolfs.new.00000000000000000000000000000001"
NO_VOLUMES = b'{"report": [{"lv": []}]}'
GROUPS = b'{"report": [{"vg": [{"vg_name": "vg0", "vg_free": "1000", "vg_extent_size": "4"}]}]}'
NO_GROUPS = b'{"report": [{"vg": []}]}'


class Programs:
    """Answers instead of LVM, and what it was asked to change."""

    def __init__(self) -> None:
        self.reports = {"lvs": VOLUMES, "vgs": GROUPS}
        self.changes: list[str] = []
        self.statuses: list[int] = []
        self.inherited: list[object] = []

    def run(self, argv: list[str], **more: object) -> Output:
        if argv[0] in self.reports:
            return Output(_selected(self.reports[argv[0]], argv[-1]), b"", 0)
        self.changes.append(" ".join(argv))
        self.inherited.append(more.get("inherited"))
        return Output(b"", b"", self.statuses.pop(0) if self.statuses else 0)


def _selected(report: bytes, selection: str) -> bytes:
    """A report of volumes with the one alone that is asked for by name, if one is."""
    _, named, name = selection.partition('lv_name="')
    if not named:
        return report
    rows = [row for row in json.loads(report)["report"][0]["lv"] if row["lv_name"] == name.rstrip('"')]
    return json.dumps({"report": [{"lv": rows}]}).encode()


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Programs:
    made = Programs()
    monkeypatch.setattr(command, "run", made.run)
    monkeypatch.setattr(provider, "_LOCK", f"{tmp_path}/{{}}.lock")
    return made


def named(group: str, volume: str) -> PoolDefinition:
    return replace(POOL, source=PoolSource(pool=group, provider="lvm", volume=volume))


def test_a_report_tells_all_that_is_asked_of_a_volume(programs: Programs) -> None:
    data, thin, _, idle, cached = lvm.volumes()
    assert (data.size, data.active, data.pool, data.used) == (1 << 30, True, "", 1.0)
    assert "one" in data.tags
    assert (thin.active, thin.tags, thin.pool, thin.used) == (True, frozenset(), "tp", 0.25)
    assert (idle.active, idle.pool, idle.used) == (False, "tp", None)
    assert (cached.pool, cached.used) == ("", 1.0)
    assert lvm.volume_group("vg0") == lvm.VolumeGroup(name="vg0", free=1000, extent=4)


@pytest.mark.parametrize(
    ("mapped", "names"),
    [
        ("vg0-data", ("vg0", "data")),
        ("my--group-a--b--c", ("my-group", "a-b-c")),
        ("nothing", None),
        ("a--b", None),
    ],
)
def test_names_of_mapped_devices_are_taken_apart(mapped: str, names: tuple[str, str] | None) -> None:
    assert lvm.split_name(mapped) == names


@pytest.mark.parametrize("name", ["-x", "a b", "a/b", "ü", "a\n", "", ".", "..", "x" * 128, 'a"b'])
def test_names_that_lvm_has_not_are_refused(name: str) -> None:
    for definition in (named(name, "data"), named("vg0", name)):
        with pytest.raises(InvalidError, match="is no name of a"):
            LogicalVolumes().check(definition)
    LogicalVolumes().check(named("vg.0_+-", ".data"))


def test_what_is_removed_after_a_crash_is_no_pools_volume() -> None:
    with pytest.raises(InvalidError, match="is what a volume is called while it is made"):
        LogicalVolumes().check(named("vg0", NEW))


def test_one_volume_is_one_whichever_way_it_is_named() -> None:
    assert LogicalVolumes().identity(POOL) == LogicalVolumes().identity(replace(POOL, name="other"))
    assert LogicalVolumes().identity(POOL) != LogicalVolumes().identity(named("vg1", "data"))


@pytest.mark.parametrize("path", ["/dev/vg0/data", "/dev/mapper/vg0-data"])
def test_a_volume_that_is_not_active_is_one_with_its_path(path: str) -> None:
    device = replace(POOL, source=PoolSource(device=path))
    assert Devices().identity(device) == LogicalVolumes().identity(POOL)


@pytest.mark.parametrize("path", ["/dev/sdx", "/dev/disk/by-id/x", "/nowhere/vg0/data", "/dev/mapper/x"])
def test_other_paths_lead_to_no_logical_volume(path: str) -> None:
    device = replace(POOL, source=PoolSource(device=path))
    assert Devices().identity(device) == f"volume:{path}"


def test_how_full_a_snapshot_is_says_nothing_of_what_it_takes(programs: Programs) -> None:
    full = b'"pool_lv": "", "data_percent": "12.00"'
    programs.reports["lvs"] = VOLUMES.replace(b'"pool_lv": "", "data_percent": ""', full)
    assert lvm.volumes()[0].used == 1.0


def test_a_volume_gets_its_name_when_it_is_made(programs: Programs) -> None:
    programs.reports["lvs"] = NO_VOLUMES
    with pytest.raises(StorageError, match="has 1000 bytes free, and 1073741824 are needed"):
        LogicalVolumes().create(POOL)
    with pytest.raises(InvalidError, match="nothing says how large"):
        LogicalVolumes().create(replace(POOL, capacity=None))
    assert programs.changes == []
    assert LogicalVolumes().create(replace(POOL, capacity=1000)) is True
    created, renamed = programs.changes
    assert created.startswith("lvcreate --yes --wipesignatures y --zero y --addtag fspoolfs.made.00000000-")
    assert created.endswith(f"--size 1000b --name {NEW} vg0")
    assert renamed == f"lvrename vg0 {NEW} data"
    assert all(programs.inherited), "a program that outlives the daemon has the lock"


def test_a_volume_that_is_there_is_used_and_only_removed_if_it_was_made_here(programs: Programs) -> None:
    volumes = LogicalVolumes()
    assert volumes.create(POOL) is False
    volumes.remove(replace(POOL, uuid=UUID(int=7)))
    assert programs.changes == ["lvremove --yes vg0/data"]
    programs.changes.clear()
    programs.reports["lvs"] = VOLUMES.replace(b"fspoolfs.made.", b"fspoolfs.other.")
    volumes.remove(POOL)
    assert programs.changes == []


@pytest.mark.parametrize("whose", [1, 7])
def test_what_was_never_finished_is_removed_by_whoever_comes_next(programs: Programs, whose: int) -> None:
    volumes, pool = LogicalVolumes(), replace(POOL, capacity=1000, uuid=UUID(int=whose))
    programs.reports["lvs"] = VOLUMES.replace(b'"data"', f'"{NEW}"'.encode())
    assert volumes.create(pool) is True
    assert [change.split()[0] for change in programs.changes] == ["lvremove", "lvcreate", "lvrename"]
    programs.changes.clear()
    volumes.remove(pool)
    assert programs.changes == [f"lvremove --yes vg0/{NEW}"]


def test_only_what_was_made_here_counts_as_never_finished(programs: Programs) -> None:
    programs.reports["lvs"] = VOLUMES.replace(b'"data"', f'"{NEW}"'.encode()).replace(b"made.", b"other.")
    LogicalVolumes().remove(POOL)
    assert programs.changes == []


def test_what_is_in_the_way_of_growing_is_removed(programs: Programs) -> None:
    rows = json.loads(VOLUMES)["report"][0]["lv"]
    rows.append({**rows[0], "lv_name": NEW})
    programs.reports["lvs"] = json.dumps({"report": [{"lv": rows}]}).encode()
    with pytest.raises(StorageError, match="has 1000 bytes free"):  # by the same report as before
        LogicalVolumes().grow(POOL, 2 << 30)
    assert programs.changes == [f"lvremove --yes vg0/{NEW}"]


def test_what_is_being_made_is_left_alone(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.reports["lvs"] = VOLUMES.replace(b'"data"', f'"{NEW}"'.encode())
    monkeypatch.setattr(provider, "_PATIENCE", 0.0)
    lock = os.open(provider._LOCK.format("vg0"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for act in (LogicalVolumes().create, LogicalVolumes().remove):
        with pytest.raises(BusyError, match="is being made or removed in volume group vg0"):
            act(POOL)
    assert programs.changes == []
    os.close(lock)
    LogicalVolumes().remove(POOL)
    assert programs.changes == [f"lvremove --yes vg0/{NEW}"]


def test_volumes_grow_and_shrink_by_whole_extents(programs: Programs) -> None:
    volumes = LogicalVolumes()
    volumes.grow(POOL, (1 << 30) - 1)
    volumes.shrink(POOL, (1 << 30) - 3)
    assert programs.changes == [], "less than an extent is no difference"
    with pytest.raises(FspoolError, match="growing does not make it smaller"):
        volumes.grow(POOL, (1 << 30) - 4)
    volumes.grow(POOL, (1 << 30) + 8)
    volumes.shrink(POOL, (1 << 30) - 4)
    programs.statuses = [3, 0]
    volumes.shrink(POOL, (1 << 30) - 4)
    assert programs.changes == [
        "lvextend --size 1073741832b vg0/data",
        "lvreduce --yes --force --size 1073741820b --fs ignore vg0/data",
        "lvreduce --yes --force --size 1073741820b --fs ignore vg0/data",
        "lvreduce --yes --force --size 1073741820b vg0/data",
    ]


def test_what_is_missing_is_named(programs: Programs) -> None:
    programs.reports = {"lvs": NO_VOLUMES, "vgs": NO_GROUPS}
    volumes = LogicalVolumes()
    with pytest.raises(NotFoundError, match="there is no volume group vg0"):
        volumes.create(POOL)
    with pytest.raises(NotFoundError, match="there is no volume group vg0"), volumes.open(POOL):
        pass
    programs.reports["vgs"] = GROUPS
    with pytest.raises(NotFoundError, match="build the pool first"), volumes.open(POOL):
        pass
    assert volumes.size(POOL) is None
    assert volumes.backing(POOL) is None


def test_a_thin_volume_lies_on_its_thin_pool(programs: Programs) -> None:
    volumes = LogicalVolumes()
    thin, thick = volumes.backing(named("vg0", "thin")), volumes.backing(POOL)
    assert thin is not None
    assert thick is not None
    assert (thin.store, thin.size, thin.allocation, thin.available) == ("vg0/tp", 2000, 500, 3500)
    assert (thick.store, thick.size, thick.allocation, thick.available) == ("vg0", 1 << 30, 1 << 30, 1000)
    assert volumes.backing(named("vg0", "idle")) is None, "nobody knows"


def test_what_a_thin_pool_takes_that_is_not_active_is_not_known(programs: Programs) -> None:
    programs.reports["lvs"] = VOLUMES.replace(b'"12.50"', b'""')
    assert LogicalVolumes().backing(named("vg0", "thin")) is None


def test_a_thin_volume_grows_without_room_in_its_group(programs: Programs) -> None:
    LogicalVolumes().grow(named("vg0", "thin"), 1 << 40)
    assert programs.changes == [f"lvextend --size {1 << 40}b vg0/thin"]
    with pytest.raises(StorageError, match="has 1000 bytes free"):
        LogicalVolumes().grow(named("vg0", "cached"), 1 << 40)
