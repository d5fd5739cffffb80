"""mount(8) itself with the helper in its place, in a mount namespace that nobody else sees."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from support.needs import needs_fuse, needs_program, needs_root
from support.shell import run

pytestmark = [needs_root, needs_fuse, needs_program("unshare", "mount", "flock"), pytest.mark.required]

PROJECT = Path(__file__).parents[2]
_numbers = count(1)

#: Puts the helper beside all that is in /usr/sbin, where mount(8) looks, then does what it is told.
SCENE = """
set -eu
mount --make-rprivate /
mkdir old new state storage tree
mount --bind /usr/sbin old
for program in old/*; do ln -s "$PWD/$program" new/; done
cp helper new/mount.fspoolfs
ln -sf mount.fspoolfs new/mount.fuse.fspoolfs
mount --bind new /usr/sbin
options="state-dir=$PWD/state,storage-dir=$PWD/storage"
ended() { flock --wait 30 state/lock true; }
"""


@pytest.fixture
def place(run_directory: Path) -> Iterator[Path]:
    directory = run_directory / f"helper{next(_numbers)}"
    directory.mkdir()
    helper = directory / "helper"
    helper.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(PROJECT)!r})\n"
        "from fspoolfs.cli.mount_helper import main\nmain()\n"
    )
    helper.chmod(0o755)
    yield directory
    run("rm", "-r", "-f", "--one-file-system", "--", directory)


def inside(place: Path, script: str) -> list[str]:
    done = run("unshare", "--mount", "bash", "-c", SCENE + script, cwd=place, timeout=100)
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", ["fspoolfs", "fuse.fspoolfs"])
def test_mount_starts_a_daemon_and_umount_ends_it(place: Path, kind: str) -> None:
    script = """
    mount -t KIND -o "$options,nofail,x-systemd.requires=network-online.target" fspoolfs tree
    findmnt --noheadings --output SOURCE,FSTYPE tree
    mkdir tree/pools/tank
    ls tree/pools
    umount tree
    ended
    """
    told = inside(place, script.replace("KIND", kind))
    assert [line.split() for line in told] == [["fspoolfs", "fuse.fspoolfs"], ["tank"]]
    assert (place / "state" / "pools" / "tank.xml").exists()


def test_a_line_of_fstab_mounts_and_is_read_by_umount(place: Path) -> None:
    told = inside(
        place,
        """
        echo "fspoolfs $PWD/tree fspoolfs defaults,_netdev,$options 0 0" > fstab
        mount -f -T "$PWD/fstab" "$PWD/tree"
        ls tree
        mount -T "$PWD/fstab" "$PWD/tree"
        ls tree | head -n 1
        umount "$PWD/tree"
        ended
        """,
    )
    assert told == ["define"]


def test_a_refusal_says_why_and_mounts_nothing(place: Path) -> None:
    told = inside(
        place,
        """
        mount -t fspoolfs -o "ro,$options" fspoolfs tree 2>&1 && exit 9 || echo $?
        touch tree/full
        mount -t fspoolfs -o "$options" fspoolfs tree 2>&1 && exit 9 || echo $?
        findmnt tree || echo nothing
        """,
    )
    assert "option ro: requests are writes" in told[0]
    assert "is not empty" in " ".join(told)
    assert [line for line in told if line.isdigit()] == ["1", "32"]
    assert told[-1] == "nothing"
