"""The registry: what is found, what is refused, and what `features` tells of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cases import pool
from fspoolfs.backends.directory import DirectorySource
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.generic import GenericFileSystem
from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.backends.registry import FileSystemKind, Registry, default_registry, simulated_registry
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.backends.volume import VolumeSource
from fspoolfs.errors import InvalidError, UnsupportedError
from fspoolfs.model.definitions import PoolSource, PoolType
from fspoolfs.system import command

#: Nothing is looked for there before something is built.
STORAGE = Path("/nonexistent")


class BrokenSource(DirectorySource):
    def unusable(self) -> str:
        return "the kernel lacks it"


class FormatSource(DirectorySource):
    format = "special"


class SpecialFileSystem(GenericFileSystem):
    name = "special"


def probe_special(root: RootDirectory) -> FileSystem | None:
    return SpecialFileSystem(root) if "mark" in root.names("") else None


SPECIAL = FileSystemKind("special", probe_special)


def features(registry: Registry) -> dict[str, str]:
    return {feature.name: feature.reason for feature in registry.features()}


def test_directory_pools_are_served_by_the_host_and_by_the_simulator() -> None:
    assert isinstance(default_registry(STORAGE).source_for(pool("/srv/tank")), DirectorySource)
    simulated = simulated_registry(SimulatedHost())
    assert isinstance(simulated.source_for(pool("/srv/tank")), SimulatedSource)


def test_refusal_names_type_and_format_and_what_works() -> None:
    network = replace(pool("/mnt/x"), type=PoolType.NETWORK, source=PoolSource(format="afs"))
    with pytest.raises(
        UnsupportedError,
        match=r"pool tank: type 'network' with format 'afs' has no backend .*: dir(, [a-z ]+)*$",
    ):
        default_registry(STORAGE).source_for(network)


def test_refusal_without_format_names_the_type_alone() -> None:
    network = replace(pool("/mnt/x"), type=PoolType.NETWORK)
    with pytest.raises(UnsupportedError, match="type 'network' has no backend"):
        simulated_registry(SimulatedHost()).source_for(network)


@pytest.mark.parametrize("format", [None, "ext4", "xfs", "btrfs", "zfs"])
def test_known_formats_of_volumes_are_accepted(format: str | None) -> None:
    wanted = PoolSource(pool="p", volume="v", format=format)
    default_registry(STORAGE).check(replace(pool("/mnt/x"), type=PoolType.VOLUME, source=wanted))


def test_refusal_of_an_unknown_format_names_those_that_there_are() -> None:
    wanted = PoolSource(pool="p", volume="v", format="ntfs")
    with pytest.raises(InvalidError, match=r"no format 'ntfs' .* one of ext4, xfs, btrfs, zfs$"):
        default_registry(STORAGE).check(replace(pool("/mnt/x"), type=PoolType.VOLUME, source=wanted))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (PoolSource(pool="p", volume="v", format="reiserfs"), "with format 'reiserfs' has no backend"),
        (
            PoolSource(pool="p", volume="v", format="reiserfs", provider="lvm"),
            "with format 'reiserfs' and provider 'lvm' has no backend",
        ),
        (PoolSource(device="/dev/sdx", format="reiserfs"), "with format 'reiserfs' has no backend"),
    ],
)
def test_refusal_names_the_part_of_a_volume_that_there_is_none_of(source: PoolSource, words: str) -> None:
    volume = replace(pool("/mnt/x"), type=PoolType.VOLUME, source=source)
    with pytest.raises(UnsupportedError, match=words):
        default_registry(STORAGE).source_for(volume)


@pytest.mark.parametrize(
    "source",
    [
        PoolSource(pool="p", volume="v"),
        PoolSource(pool="p", volume="v", provider="images", format="btrfs"),
        PoolSource(device="/dev/sdx", format="xfs"),
    ],
)
def test_volumes_are_images_unless_they_say_otherwise(source: PoolSource) -> None:
    volume = replace(pool("/mnt/x"), type=PoolType.VOLUME, source=source)
    assert isinstance(default_registry(STORAGE).source_for(volume), VolumeSource)


@pytest.mark.parametrize(("format", "expected"), [("special", FormatSource), ("ext4", DirectorySource)])
def test_source_for_just_this_format_goes_before_one_for_all(format: str, expected: type) -> None:
    registry = Registry([DirectorySource(), FormatSource()])
    wanted = replace(pool("/srv/tank"), source=PoolSource(format=format))
    assert type(registry.source_for(wanted)) is expected


def test_first_file_system_that_recognises_the_root_gets_it() -> None:
    registry = Registry([], [SPECIAL])
    root = MemoryRoot(MemoryTree(), "/simulated")
    assert registry.filesystem_at(root).name == "generic"
    root.make_directory("mark", mode=0o755)
    assert registry.filesystem_at(root).name == "special"
    assert registry.filesystem_at(root).root is root


def test_features_tell_of_everything_that_pools_are_known_by() -> None:
    rows = features(default_registry(STORAGE))
    assert {"pool dir", "pool volume", "provider images", "provider lvm"} <= rows.keys()
    assert {"filesystem generic", "filesystem btrfs", "filesystem project-quota"} <= rows.keys()
    absent = {name for name, reason in rows.items() if reason == "no backend in this version"}
    assert "network sshfs" in rows
    assert "network sshfs" not in absent
    assert "filesystem generic" not in absent
    assert (
        rows["pool dir"]
        == rows["filesystem btrfs"]
        == rows["filesystem zfs"]
        == rows["filesystem project-quota"]
        == ""
    )
    of_volumes = {
        "pool volume",
        "provider images",
        "provider device",
        "provider lvm",
        "provider libvirt",
        "format ext4",
        "format xfs",
        "format zfs",
    }
    assert of_volumes & absent == set(), "they work, or tell what they need"


def test_features_tell_which_package_a_format_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DIRECTORIES", ())
    rows = features(default_registry(STORAGE))
    assert rows["format xfs"] == "mkfs.xfs is not installed; install the package xfsprogs"


def test_features_tell_why_a_registered_source_cannot_be_used() -> None:
    assert features(Registry([BrokenSource()]))["pool dir"] == "the kernel lacks it"


def test_features_tell_of_what_is_registered_and_not_known_otherwise() -> None:
    rows = features(Registry([FormatSource()], [SPECIAL]))
    assert rows["pool dir special"] == rows["filesystem special"] == ""
    assert rows["pool dir"] == "no backend in this version"
