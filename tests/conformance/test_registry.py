"""The registry: what is found, what is refused, and what `features` tells of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.cases import pool
from fspoolfs.backends.directory import DirectorySource
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.generic import GenericFileSystem
from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.backends.registry import FileSystemKind, Registry, default_registry, simulated_registry
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.errors import UnsupportedError
from fspoolfs.model.definitions import PoolSource, PoolType


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
    assert isinstance(default_registry().source_for(pool("/srv/tank")), DirectorySource)
    simulated = simulated_registry(SimulatedHost())
    assert isinstance(simulated.source_for(pool("/srv/tank")), SimulatedSource)


def test_refusal_names_type_and_format_and_what_works() -> None:
    network = replace(pool("/mnt/x"), type=PoolType.NETWORK, source=PoolSource(format="nfs"))
    with pytest.raises(
        UnsupportedError, match=r"pool tank: type 'network' with format 'nfs' has no backend .*: dir$"
    ):
        default_registry().source_for(network)


def test_refusal_without_format_names_the_type_alone() -> None:
    volume = replace(pool("/mnt/x"), type=PoolType.VOLUME)
    with pytest.raises(UnsupportedError, match="type 'volume' has no backend"):
        default_registry().source_for(volume)


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
    rows = features(default_registry())
    assert {"pool dir", "pool volume", "provider images", "provider lvm"} <= rows.keys()
    assert {"filesystem generic", "filesystem btrfs", "filesystem project-quota"} <= rows.keys()
    usable = {name for name, reason in rows.items() if not reason}
    assert usable == {"pool dir", "filesystem btrfs", "filesystem project-quota", "filesystem generic"}
    assert {reason for reason in rows.values() if reason} == {"no backend in this version"}


def test_features_tell_why_a_registered_source_cannot_be_used() -> None:
    assert features(Registry([BrokenSource()]))["pool dir"] == "the kernel lacks it"


def test_features_tell_of_what_is_registered_and_not_known_otherwise() -> None:
    rows = features(Registry([FormatSource()], [SPECIAL]))
    assert rows["pool dir special"] == rows["filesystem special"] == ""
    assert rows["pool dir"] == "no backend in this version"
