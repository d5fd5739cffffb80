"""What is peculiar to pools of type "dir", beyond the contract of every source."""

from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cases import memory, pool
from fspoolfs.backends.directory import DirectorySource
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.backends.source import BuildMode, Source
from fspoolfs.errors import FspoolError, InvalidError, NotEmptyError, NotFoundError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition, PoolSource
from fspoolfs.progress import Progress
from support.needs import needs_program, needs_root


@pytest.fixture(params=["dir", "sim"])
def source(request: pytest.FixtureRequest) -> Source:
    return DirectorySource() if request.param == "dir" else SimulatedSource(SimulatedHost())


@pytest.fixture
def definition(tmp_path: Path) -> PoolDefinition:
    return pool(tmp_path / "srv" / "tank")


def target(definition: PoolDefinition) -> Path:
    return Path(definition.target or "")


def build(definition: PoolDefinition, mode: BuildMode = BuildMode.NO_OVERWRITE) -> None:
    DirectorySource().build(definition, mode, Progress())


# What no directory pool can have, simulated or not.


def test_capacity_is_refused_with_the_reason(source: Source, definition: PoolDefinition) -> None:
    with pytest.raises(UnsupportedError, match=r"pool tank: .*no capacity of its own.*leave <capacity> out"):
        source.check(replace(definition, capacity=1 << 30))


def test_source_element_is_refused_with_the_reason(source: Source, definition: PoolDefinition) -> None:
    with pytest.raises(UnsupportedError, match=r"pool tank: .*leave <source> out"):
        source.check(replace(definition, source=PoolSource(device="/dev/sdx")))


def test_identity_is_the_place_however_it_is_spelt(source: Source, definition: PoolDefinition) -> None:
    respelt = replace(definition, target=f"{definition.target}/.//x/..")
    elsewhere = replace(definition, target=f"{definition.target}-2")
    assert source.identity(respelt) == source.identity(definition)
    assert source.identity(elsewhere) != source.identity(definition)


def test_building_erases_nothing_even_when_it_may(source: Source, definition: PoolDefinition) -> None:
    source.build(definition, BuildMode.NO_OVERWRITE, Progress())
    source.attach(definition, Progress()).write("file", b"data", replace=False, durable=False)
    source.build(definition, BuildMode.OVERWRITE, Progress())
    assert source.attach(definition, Progress()).names("") == ["file"]


# On the host.


@pytest.mark.parametrize(
    "path",
    ["/", "//", "/proc", "/proc/self", "/sys/kernel", "/dev", "/dev/pts/x", "/dev/shm", "/run", "/run/../run",
     "/etc", "/usr", "/usr/lib", "/var", "/var/run", "/home", "/tmp", "/bin"],
)  # fmt: skip
def test_directory_of_the_system_is_refused(path: str) -> None:
    source, refusal = DirectorySource(), r"pool tank: .*belongs to the system"
    with pytest.raises(InvalidError, match=refusal):
        source.check(pool(path))
    with pytest.raises(InvalidError, match=refusal):
        source.build(pool(path), BuildMode.OVERWRITE, Progress())
    with pytest.raises(InvalidError, match=refusal):
        source.delete(pool(path))


@pytest.mark.parametrize("path", ["/srv/tank", "/var/lib/fspoolfs/pools/tank", "/dev/shm/tank", "/runtime"])
def test_directory_of_its_own_is_accepted(path: str) -> None:
    DirectorySource().check(pool(path))


def test_link_to_a_directory_of_the_system_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(InvalidError, match="/etc belongs to the system"):
        DirectorySource().check(pool(tmp_path / "link"))


def test_two_ways_to_one_directory_are_one_identity(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    source = DirectorySource()
    assert source.identity(pool(tmp_path / "link/x")) == f"dir:{tmp_path}/real/x"
    assert source.identity(pool(tmp_path / "real/x")) == f"dir:{tmp_path}/real/x"


@pytest.mark.usefixtures("strict_umask")
def test_build_makes_the_target_and_what_is_missing_above_it(definition: PoolDefinition) -> None:
    build(definition)
    for directory in (target(definition), target(definition).parent):
        assert directory.stat().st_mode & 0o7777 == 0o755


def test_build_leaves_the_mode_of_a_directory_that_exists(definition: PoolDefinition) -> None:
    target(definition).mkdir(parents=True, mode=0o700)
    build(definition)
    assert target(definition).stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("below", ["", "x/y"])
def test_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    in_the_way = pool(file / below)
    with pytest.raises(FspoolError, match=f"pool tank: {file} is not a directory") as caught:
        build(in_the_way)
    assert caught.value.errno == errno.ENOTDIR
    assert file.read_text() == "precious"


def test_file_in_the_place_of_the_target_is_neither_attached_nor_deleted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    source = DirectorySource()
    with pytest.raises(FspoolError, match="is not a directory"):
        source.attach(pool(file), Progress())
    with pytest.raises(FspoolError, match="is not a directory"):
        source.delete(pool(file))
    assert file.read_text() == "precious"


def test_build_follows_a_link_to_where_the_pool_shall_be(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    build(pool(tmp_path / "link"))
    assert (tmp_path / "elsewhere").is_dir()
    DirectorySource().delete(pool(tmp_path / "link"))
    assert os.listdir(tmp_path) == ["link"]


def test_delete_leaves_the_directories_above_the_target(definition: PoolDefinition) -> None:
    build(definition)
    DirectorySource().delete(definition)
    assert os.listdir(target(definition).parent) == []


@needs_root
@needs_program("mount", "umount")
def test_mount_point_is_left_as_it_was_found(definition: PoolDefinition) -> None:
    build(definition)
    subprocess.run(["mount", "-t", "tmpfs", "none", definition.target or ""], check=True)
    try:
        (target(definition) / ".fspool").mkdir()
        DirectorySource().delete(definition)
        assert target(definition).is_mount()
        assert os.listdir(target(definition)) == []
    finally:
        subprocess.run(["umount", definition.target or ""], check=True)


def test_link_in_the_root_is_a_leftover_like_any_other(definition: PoolDefinition, tmp_path: Path) -> None:
    build(definition)
    (tmp_path / "precious").mkdir()
    (target(definition) / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(NotEmptyError, match="'link'"):
        DirectorySource().delete(definition)
    assert (tmp_path / "precious").is_dir()


def test_own_directory_that_is_a_link_is_never_followed(definition: PoolDefinition, tmp_path: Path) -> None:
    build(definition)
    (tmp_path / "precious").mkdir()
    (target(definition) / ".fspool").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=r"\.fspool"):
        DirectorySource().delete(definition)
    assert (tmp_path / "precious").is_dir()
    assert (target(definition) / ".fspool").is_symlink()


def test_root_that_another_directory_replaced_is_noticed(definition: PoolDefinition) -> None:
    build(definition)
    source = DirectorySource()
    root = source.attach(definition, Progress())
    target(definition).rename(f"{definition.target}-moved")
    build(definition)
    with pytest.raises(FspoolError, match="no longer the directory") as caught:
        source.verify(definition, root)
    assert caught.value.errno == errno.ESTALE
    root.close()


def test_root_of_another_source_is_a_defect(definition: PoolDefinition, tmp_path: Path) -> None:
    with memory(tmp_path) as root, pytest.raises(TypeError):
        DirectorySource().verify(definition, root)


def test_missing_target_tells_to_build(definition: PoolDefinition) -> None:
    with pytest.raises(NotFoundError, match=f"{definition.target} does not exist; build the pool first"):
        DirectorySource().attach(definition, Progress())
