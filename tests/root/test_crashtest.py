"""The crash contract on real storage, at a sample of all crashes, and the program that tests it.

`scripts/crashtest` without arguments does it at every crash.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from mount.control import request
from root.volume_pools import FORMATS, SIZE, define, root_of
from support import zfs
from support.daemon import PROJECT, Daemon
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import run, sh
from support.wait import eventually

if TYPE_CHECKING:
    from crashing.tracer import Kill, Report

pytestmark = [
    needs_root,
    needs_fuse,
    needs_program("cc", "dash", "setfattr", "setpriv"),
    pytest.mark.required,
]

#: Their images lie on ext4.
ON_VOLUMES = needs_program("blkid", "wipefs", *(f"mkfs.{format}" for format in FORMATS))
SCRIPT = PROJECT / "scripts" / "crashtest"
#: Seconds for the longest run here on a machine that does other things as well.
LIMIT = 240.0

Import = Callable[[str], ModuleType]


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Imports a module of the crash test."""
    monkeypatch.syspath_prepend(str(PROJECT / "scripts"))
    return lambda name: importlib.import_module(f"crashing.{name}")


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory on the disk that crashes are tested on."""
    with tempfile.TemporaryDirectory(prefix="fspoolfs-test-", dir="/var/tmp") as path:
        yield Path(path)


def crashes(output: str) -> int:
    """How many crashes the last line of a run tells of."""
    found = re.search(r"^total +(\d+) ", output, re.MULTILINE)
    assert found is not None, output
    return int(found[1])


@pytest.mark.parametrize(
    ("kind", "operations"),
    [
        ("folder", ("item create deep", "rename chain")),
        ("folder", ("item delete for good", "item clone")),
        ("folder", ("two pools", "shutdown")),
        ("folder", ("pool first start", "recover mv")),
        ("folder", ("snapshot take", "snapshot rollback")),
        pytest.param(
            "btrfs-simple", ("limit rollback", "rollback and delete"), marks=needs_program("mkfs.btrfs")
        ),
        pytest.param("xfs", ("snapshot item purge", "snapshot clone"), marks=needs_program("mkfs.xfs")),
        pytest.param("volume-ext4", ("volume build", "volume grow"), marks=ON_VOLUMES),
        pytest.param("volume-xfs", ("volume build overwrite",), marks=ON_VOLUMES),
        pytest.param("volume-btrfs", ("volume delete",), marks=ON_VOLUMES),
        # Each start of zfs-fuse takes seconds.
        pytest.param("volume-zfs", ("volume delete", "volume grow"), marks=[*zfs.MARKS, pytest.mark.long]),
    ],
)
def test_the_contract_holds_at_a_sample_of_crashes(
    kind: str, operations: tuple[str, ...], place: Path
) -> None:
    only = [argument for name in operations for argument in ("--only", name)]
    result = run(SCRIPT, *only, "--on", kind, "--limit", "2", "--dir", place, check=False, timeout=LIMIT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert crashes(result.stdout) == 2 * len(operations)
    assert list(place.iterdir()) == []


#: Runs the crash test with an operation of two requests, which a crash can tear apart.
TORN = """
import sys
from crashing import __main__ as program
from crashing.operations import Operation, Track
step = 'mkdir "$P/items/a" && mkdir "$P/items/b"'
program.OPERATIONS = [Operation(name="torn", tracks=(Track("tank", (step,)),))]
sys.exit(program.main(sys.argv[1:]))
"""


def test_an_operation_that_is_torn_apart_is_a_violation_and_what_it_left_is_kept(place: Path) -> None:
    result = run(
        *("unshare", "--mount", "--propagation", "private", "--", sys.executable, "-c", TORN),
        # The end of the first request, whose record is durable, and what comes after success.
        *("--every", "6", "--seed", "5", "--dir", place),
        env={"PYTHONPATH": f"{PROJECT / 'scripts'}:{PROJECT / 'tests'}"},
        check=False,
        timeout=LIMIT,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.search(r"^torn +11 +2 +1 +0 +0 +1 ", result.stdout, re.MULTILINE), result.stdout
    assert "0 steps had returned success" in result.stdout
    assert "+item a " in result.stdout
    kept = re.search(r"^violations: what each left is in (.*)$", result.stdout, re.MULTILINE)
    assert kept is not None
    case = Path(kept[1]) / "torn-before-6"
    assert {path.name for path in case.iterdir()} == {"crashed", "restarted", "log", "violations"}
    assert (case / "crashed" / "storage" / "pools" / "tank" / "a").is_dir()
    assert not (case / "crashed" / "storage" / "pools" / "tank" / "b").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
def test_an_interrupted_run_leaves_nothing(number: signal.Signals, place: Path) -> None:
    with subprocess.Popen(
        [SCRIPT, "--only", "item create", "--dir", place],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("operation")
        os.killpg(process.pid, number)
        assert process.wait(LIMIT) == 128 + number
    assert list(place.iterdir()) == []


def test_nothing_is_tested_that_is_not_there() -> None:
    result = run(SCRIPT, "--only", "item rename sideways", check=False)
    assert result.returncode == 2
    assert "invalid choice" in result.stderr


# -- the tracer -----------------------------------------------------------------------------------

#: Makes a directory in each of three threads, one after the other, when it is told to.
THREADS = """
import os, sys, threading
sys.stdin.read(1)
for name in "abc":
    thread = threading.Thread(target=os.mkdir, args=(os.path.join(sys.argv[1], name),))
    thread.start()
    thread.join()
"""


@pytest.mark.parametrize(
    ("number", "after", "made"), [(1, False, ""), (2, False, "a"), (2, True, "ab"), (3, True, "abc")]
)
def test_a_process_is_killed_at_one_change_whichever_thread_makes_it(
    number: int, after: bool, made: str, place: Path, crashing: Import
) -> None:
    calls, tracer = crashing("calls"), crashing("tracer")
    report = follow(place, crashing, tracer.Kill(number, after=after))
    assert sorted(path.name for path in place.iterdir()) == list(made)
    assert report.killed
    assert [call.target for call in report.calls] == [str(place / name) for name in "abc"[:number]]
    assert {call.name for call in report.calls} <= set(calls.numbers().values())


def test_a_process_that_is_not_to_be_killed_goes_on_to_its_end(place: Path, crashing: Import) -> None:
    report = follow(place, crashing, None)
    assert not report.killed
    assert len(report.calls) == 3
    assert len(list(place.iterdir())) == 3


#: Makes a directory, has a program make another one, and makes a third.
PROGRAMS = """
import os, subprocess, sys
sys.stdin.read(1)
place = sys.argv[1]
os.mkdir(os.path.join(place, "a"))
subprocess.run(["mkdir", os.path.join(place, "b")], check=True)
os.mkdir(os.path.join(place, "c"))
"""


def test_a_process_is_killed_at_a_change_of_its_program_which_goes_on(place: Path, crashing: Import) -> None:
    report = follow(place, crashing, crashing("tracer").Kill(2), script=PROGRAMS)
    assert report.killed
    assert report.unguarded == "mkdir"
    assert [call.target for call in report.calls] == [str(place / "a"), str(place / "b")]
    eventually((place / "b").is_dir, what="the program has come to its end")
    assert sorted(path.name for path in place.iterdir()) == ["a", "b"]


#: How the program above can be run so that it is in nobody's way afterwards.
GUARDS = {
    "tied": 'subprocess.run(["setpriv", "--pdeathsig", "KILL", "--", "mkdir",',
    "locking": "import fcntl; lock = open(os.path.dirname(place) + '/lock', 'w'); "
    'fcntl.flock(lock, 2); subprocess.run(pass_fds=[lock.fileno()], args=["mkdir",',
}


@pytest.mark.parametrize("guard", GUARDS)
def test_a_program_that_ends_with_its_process_or_has_a_lock_is_guarded(
    guard: str, place: Path, crashing: Import
) -> None:
    inner = place / "inner"
    inner.mkdir()
    script = PROGRAMS.replace('subprocess.run(["mkdir",', GUARDS[guard])
    report = follow(inner, crashing, crashing("tracer").Kill(2), script=script)
    assert report.killed
    assert report.unguarded == ""
    if guard == "tied":
        assert [path.name for path in inner.iterdir()] == ["a"]
    else:
        eventually((inner / "b").is_dir, what="the program has come to its end")


def follow(place: Path, crashing: Import, kill: Kill | None, *, script: str = THREADS) -> Report:
    """What the tracer reports of a process that makes directories in `place`."""
    process = subprocess.Popen([sys.executable, "-c", script, place], stdin=subprocess.PIPE)
    assert process.stdin is not None
    tracer = crashing("tracer").Tracer(
        process.pid, names=crashing("calls").numbers(), directories=[str(place)], kill=kill
    )
    try:
        process.stdin.write(b"x")
        process.stdin.close()
        report: Report = tracer.report()
        process.wait()
        return report
    finally:
        tracer.close()
        process.kill()
        process.wait()


# -- what is checked ------------------------------------------------------------------------------

OWN = "$S/pools/tank/.fspool"

#: What is done behind the daemon's back, and what is said of it. No two touch the same thing.
DEFECTS = {
    'mkdir "$S/pools/tank/stray"': "stray in its root belongs to no item",
    'rmdir "$S/pools/tank/a"; echo refresh > "$P/status"': "item a is missing",
    f'rm "{OWN}/items/b.xml"': "items/b.xml is missing",
    f'echo "<fs>" > "{OWN}/items/c.xml"': "items/c.xml cannot be read",
    f'sed -i s/0755/0700/ "{OWN}/items/d.xml"': "items/d.xml says",
    f'echo > "{OWN}/items/e.xml"': "items/e.xml belongs to nothing",
    f'mkdir "{OWN}/staging/x"': "staging/x belongs to nothing",
    f'mkdir "{OWN}/trash/x"': "trash/x belongs to nothing",
    f'rm -r "{OWN}"/trash/*-????????????': "is missing",
    f'echo > "{OWN}/.0123"': ".fspool/.0123 belongs to nothing",
    'echo > "$T/active/.0123"': "active/.0123 belongs to nothing",
    'echo > "$T/pools/stray.xml"': "pools/stray.xml belongs to nothing",
    'rm "$T/pools/tank.xml"': "pools/tank.xml is missing",
    'echo > "$T/pending/tank.xml"': "pending/tank.xml belongs to nothing",
    'echo > "$T/autostart/tank"': "autostart/tank belongs to nothing",
    'rm "$T/active/tank"': "active/tank is missing",
    'echo > "$T/deleting/tank"': "deleting/tank belongs to nothing",
}

#: What changes a pool, each in another way.
CHANGES = [
    'echo x >> "$P/items/a/data/file"',
    'truncate -s 0 "$P/items/a/data/file"',
    'chmod 600 "$P/items/a/data/file"',
    'touch "$P/items/a/data/file"',
    'setfattr -n user.a -v b "$P/items/a/data/file"',
    'ln "$P/items/a/data/file" "$P/items/a/data/more"',
    'mv "$P/items/a/data/file" "$P/items/a/data/other"',
    'ln -s other "$P/items/a/data/link"',
    'chmod 700 "$P/items/a"',
    'chmod 777 "$S/pools/tank"',
    'chmod 777 "$S/pools"',
    'echo 1 > "$P/autostart"',
    'rmdir "$P/trash/old"',
    'mkdir "$P/items/new"',
    'mv "$P/items/new" "$P/items/newer"',
    'rmdir "$P/items/newer"',
    'echo stop > "$P/status"',
    'rmdir "$P"',
]


@pytest.fixture
def pool(daemon: Daemon) -> Callable[[str], None]:
    """A pool with items and one in the trash; runs lines in which $T is the state directory."""
    env = {
        "M": str(daemon.mount),
        "S": str(daemon.storage),
        "T": str(daemon.state),
        "P": str(daemon.mount / "pools" / "tank"),
    }

    def do(script: str) -> None:
        sh(f"set -e; {script}", env=env)

    do('mkdir "$M/pools/tank"; echo "start build" > "$P/status"')
    do('for name in a b c d old; do mkdir "$P/items/$name"; done; rmdir "$P/items/old"')
    return do


def test_every_defect_is_a_violation_and_nothing_else(
    daemon: Daemon, pool: Callable[[str], None], crashing: Import
) -> None:
    contract = crashing("contract")
    assert contract.violations(daemon.mount, daemon.state, frozenset(), daemon.log) == []
    for script in DEFECTS:
        pool(script)
    found = contract.violations(daemon.mount, daemon.state, frozenset(), daemon.log)
    missed = [sentence for sentence in DEFECTS.values() if not any(sentence in one for one in found)]
    assert not missed, found
    assert len(found) == len(DEFECTS), found


@pytest.mark.parametrize("format", FORMATS)
@ON_VOLUMES
def test_one_mkfs_is_told_from_the_next(format: str, place: Path, crashing: Import) -> None:
    uuid, uuids = str(uuid4()), {"xfs": ("-m", "uuid={}")}
    volumes, images = crashing("volumes").Volumes(place), place / "volumes" / "images"
    images.mkdir(parents=True)
    image, marker = images / "tank.img", place / "volumes" / ".formatting" / uuid
    option, text = uuids.get(format, ("-U", "{}"))

    def make() -> None:
        run(f"mkfs.{format}", "-q", "-F" if format == "ext4" else "-f", option, text.format(uuid), image)

    assert volumes.describe("tank", frozenset()) == ""
    with image.open("wb") as file:
        file.truncate(SIZE)
    assert volumes.describe("tank", frozenset()) == "nothing"
    make()
    first = volumes.complete()
    assert {str(made.uuid) for made in first} == {uuid}
    assert volumes.describe("tank", first) == "a file system that was there"
    make()
    assert volumes.describe("tank", first) == "a file system that was made since"
    assert not first & volumes.complete()
    marker.parent.mkdir()
    marker.touch()
    assert volumes.describe("tank", first) == "half of a file system"
    assert volumes.complete() == frozenset()
    assert sorted(volumes.leftovers()) == [f"{path} belongs to nothing" for path in (marker, image)]


@ON_VOLUMES
def test_what_is_attached_or_mounted_and_should_not_be_is_a_violation(
    daemon: Daemon, crashing: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = define(daemon, "tank", "ext4")
    request(pool / "status", "start build")
    root, checked = root_of(pool), crashing("volumes")
    volumes = checked.Volumes(daemon.storage)
    assert list(volumes.violations({"tank": root})) == []
    monkeypatch.setattr(checked, "_PATIENCE", 0.0)
    found = list(volumes.violations({"tank": None}))
    assert len(found) == 2, found
    assert "0 loop devices show" in found[0]
    assert f"mounted are ['{root}'], and active pools have []" in found[1]
    request(pool / "status", "stop")
    assert list(volumes.violations({"tank": None})) == []
    assert len(list(volumes.violations({"tank": root}))) == 2


def test_an_error_in_the_log_is_a_violation(daemon: Daemon, crashing: Import) -> None:
    log = f"{daemon.log}2026-01-01 00:00:00,000 ERROR fspoolfs.service: something broke\n"
    found = crashing("contract").violations(daemon.mount, daemon.state, frozenset(), log)
    assert found == ["not announced: 2026-01-01 00:00:00,000 ERROR fspoolfs.service: something broke"]


def test_every_change_of_a_pool_is_seen(
    daemon: Daemon, pool: Callable[[str], None], crashing: Import
) -> None:
    seen = crashing("seen")
    pool('echo data > "$P/items/a/data/file"; chmod 644 "$P/items/a/data/file"')
    known = seen.uuids(daemon.mount)
    before = seen.look(daemon.mount, daemon.storage, "tank", known)
    assert seen.look(daemon.mount, daemon.storage, "tank", known) == before
    for script in CHANGES:
        pool(script)
        now = seen.look(daemon.mount, daemon.storage, "tank", known)
        assert now != before, script
        before = now
