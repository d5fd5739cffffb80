"""Pools on logical volumes whose daemon dies, or whose disk loses power, in the midst of an operation.

After the next start everything is whole or can be built again, nothing is formatted twice, and no
volume is left that nobody owns. Those marked `long` run with `-m long`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from crashing import contract
from mount.control import last_error, request, value
from support.machine import is_mounted
from support.shell import run
from support.wait import eventually
from vm.disks import space
from vm.dying import Moment, daemons_die, is_running
from vm.preloaded import PreloadedDaemon
from vm.volume_groups import Group

MIB = 1 << 20
SIZE, LARGER = 64 * MIB, 128 * MIB

BUILDING = ("lvcreate", "lvrename", "mkfs.ext4", "lvchange n")
#: When there may be a file system already.
FORMATTED = BUILDING[2:]
GROWING = ("lvextend", "resize2fs")
DELETING = ("lvchange y", "wipefs", "lvchange n", "lvremove")


@pytest.fixture(scope="module")
def group() -> Group:
    return Group("vg-crash", 400 * MIB)


@pytest.fixture(autouse=True)
def clean(daemon: PreloadedDaemon, group: Group) -> Iterator[None]:
    """What a failed test leaves is no other test's concern."""
    yield
    if not daemon.is_running:
        daemon.kill()
        daemon.start()
    for pool in (daemon.mount / "pools").iterdir():
        with suppress(OSError):
            request(pool / "status", "destroy")
        pool.rmdir()
    if group.volumes():
        group.return_after_cut()
        group.clear()


Lose = Callable[[Moment, Path, str], None]


@pytest.fixture(params=["killed", "power"])
def how(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def lose(how: str, daemon: PreloadedDaemon, group: Group) -> Lose:
    """Lets a request be the last thing that a daemon does: it dies in the midst, with the power or alone."""

    def lose(moment: Moment, file: Path, text: str) -> None:
        is_cut, program = how == "power", moment.words.split()[0]

        def cut(is_working: Callable[[], bool]) -> None:
            if is_cut:
                group.cut_after_a_write(is_working)

        daemon.stop()
        with daemons_die(moment, cut):
            daemon.start()
        contract.settle(daemon.mount)
        root = Path(os.readlink(file.parent / "root"))
        with pytest.raises(OSError, match=r"."):
            request(file, text)
        eventually(lambda: not daemon.is_running, what=f"the daemon has died {moment}")
        daemon.kill()
        if is_cut:
            eventually(lambda: not is_running(program), what=f"{program} has ended")
            group.return_after_cut([root])
        daemon.start()
        contract.settle(daemon.mount)

    return lose


def moments(*programs: str) -> list[object]:
    found = [Moment(when, words) for words in programs for when in ("before", "during", "after")]
    return [pytest.param(moment, id=str(moment).replace(" ", "-")) for moment in found]


def define(daemon: PreloadedDaemon, group: Group, name: str = "tank", *, volume: str = "data") -> Path:
    request(
        daemon.mount / "define",
        f"<fspool type='volume'><name>{name}</name><capacity>{SIZE}</capacity>"
        f"<source><pool name='{group.name}' provider='lvm'/><volume name='{volume}'/><format type='ext4'/>"
        "</source><trash retention='none'/></fspool>",
    )
    return daemon.mount / "pools" / name


def furnish(pool: Path) -> Path:
    (pool / "items" / "web").mkdir()
    file = pool / "items" / "web" / "data" / "file"
    with file.open("w") as opened:
        opened.write("kept")
        opened.flush()
        os.fsync(opened.fileno())
    return file


def come_to_an_end(pool: Path, group: Group, *, may_be_anothers: bool = False) -> None:
    """Everything of the pool's life, from wherever it is, and nothing of it is left."""
    with suppress(OSError):
        request(pool / "status", "start")
    if value(pool / "status") != "active":
        try:
            request(pool / "status", "build")
        except FileExistsError:
            assert may_be_anothers, last_error(pool)
            assert "ext4 file system, label 'tank'" in last_error(pool)
            request(pool / "status", "build overwrite")
        request(pool / "status", "start")
    assert os.listdir(pool / "items") == []
    furnish(pool)
    request(pool / "status", "stop")
    request(pool / "status", "build")  # it is not formatted twice
    request(pool / "status", "start")
    assert (pool / "items" / "web" / "data" / "file").read_text() == "kept"
    (pool / "items" / "web").rmdir()
    assert group.volumes() == {"data": SIZE}
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert group.volumes() == {}


def grow_to_an_end(daemon: PreloadedDaemon, group: Group, lose: Lose, moment: Moment) -> None:
    pool = define(daemon, group)
    request(pool / "status", "start build")
    file = furnish(pool)
    lose(moment, pool / "capacity", str(LARGER))
    assert value(pool / "status") == "active"
    assert value(pool / "capacity") == str(LARGER), "what was wanted is the definition before anything grows"
    assert group.volumes() == {"data": LARGER}
    root = Path(os.readlink(pool / "root"))
    assert space(root) > LARGER * 0.8
    assert file.read_text() == "kept"
    (pool / "items" / "web").rmdir()
    request(pool / "status", "stop")
    assert not is_mounted(root)
    run("e2fsck", "-f", "-n", activated(group))
    request(pool / "status", "delete")
    assert group.volumes() == {}


def activated(group: Group) -> str:
    """The device of the volume of a pool that is stopped."""
    run("lvchange", "--activate", "y", f"{group.name}/data")
    return f"/dev/{group.name}/data"


# A sample for every run.


def test_power_is_really_cut(daemon: PreloadedDaemon, group: Group) -> None:
    """What is written afterwards is gone, or the others would prove nothing."""
    run("lvcreate", "--yes", "--size", "4m", "--name", "before", group.name)
    group.cut()
    run("lvcreate", "--yes", "--size", "4m", "--name", "after", group.name)
    group.return_after_cut()
    assert group.volumes() == {"before": 4 * MIB}


@pytest.mark.parametrize("how", ["killed"], indirect=True)
def test_what_was_never_finished_is_removed_by_another_pool(
    daemon: PreloadedDaemon, group: Group, lose: Lose
) -> None:
    pool = define(daemon, group)
    uuid = UUID(value(pool / "uuid"))
    lose(Moment("before", "lvrename"), pool / "status", "build")
    assert group.volumes() == {f"fspoolfs.new.{uuid.hex}": SIZE}
    pool.rmdir()
    pool = define(daemon, group, "other", volume="another")
    request(pool / "status", "build")
    assert group.volumes() == {"another": SIZE}
    request(pool / "status", "delete")
    assert group.volumes() == {}


@pytest.mark.parametrize("how", ["power"], indirect=True)
def test_a_power_cut_while_a_volume_is_made(daemon: PreloadedDaemon, group: Group, lose: Lose) -> None:
    pool = define(daemon, group)
    lose(Moment("during", "lvcreate"), pool / "status", "build")
    come_to_an_end(pool, group)


@pytest.mark.parametrize("how", ["power"], indirect=True)
def test_a_power_cut_while_a_volume_grows(daemon: PreloadedDaemon, group: Group, lose: Lose) -> None:
    grow_to_an_end(daemon, group, lose, Moment("during", "lvextend"))


# All.


@pytest.mark.long
@pytest.mark.parametrize("moment", moments(*BUILDING))
@pytest.mark.parametrize("again", ["same", "other", "delete"])
def test_a_build_that_ends_in_the_midst(
    daemon: PreloadedDaemon, group: Group, lose: Lose, moment: Moment, again: str
) -> None:
    pool = define(daemon, group)
    lose(moment, pool / "status", "build")
    if again == "delete":
        request(pool / "status", "delete")
        assert group.volumes() == {}
        return
    if again == "other":
        pool.rmdir()
        pool = define(daemon, group, "other")
    # What was formatted is a pool, or half of one, that only its own definition builds unasked.
    come_to_an_end(pool, group, may_be_anothers=again == "other" and moment.words in FORMATTED)


@pytest.mark.long
@pytest.mark.parametrize("moment", moments(*GROWING))
def test_growth_that_ends_in_the_midst(
    daemon: PreloadedDaemon, group: Group, lose: Lose, moment: Moment
) -> None:
    grow_to_an_end(daemon, group, lose, moment)


@pytest.mark.long
@pytest.mark.parametrize("moment", moments(*DELETING))
def test_a_deletion_that_ends_in_the_midst(
    daemon: PreloadedDaemon, group: Group, lose: Lose, moment: Moment
) -> None:
    pool = define(daemon, group)
    request(pool / "status", "build")
    lose(moment, pool / "status", "delete")
    come_to_an_end(pool, group)
