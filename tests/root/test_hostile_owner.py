"""An item's owner who turns his directories into links while the daemon, which is root, works on them."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fspoolfs.service.events import KEPT_BYTES
from mount.control import ControlTree, request
from support.daemon import daemons
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import as_user, sh
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, needs_program("python3"), pytest.mark.required]

ALICE = as_user(1001)
BOB = as_user(1002)
#: How often an item is renamed there and back: more than the journal and what is kept of events can hold.
PAIRS = 1200
#: How often each request meets the loop below.
ROUNDS = 8

#: Exchanges directories and links in the directory that it is started in, wherever that is moved to,
#: without a pause: `deep/a` to `deep/d` lead to the canary or are directories with files of the same names.
SWAP = """
import ctypes, os, sys
victim = sys.argv[1].encode()
here = os.open(".", os.O_RDONLY)
libc = ctypes.CDLL(None)
def attempt(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except OSError:
        pass
def furnish():
    attempt(os.mkdir, "deep", 0o777, dir_fd=here)
    for name in "abcd":
        attempt(os.mkdir, f"deep/{name}", 0o777, dir_fd=here)
        for file in ("file", "secret"):
            attempt(lambda: os.close(os.open(f"deep/{name}/{file}", os.O_CREAT | os.O_WRONLY, dir_fd=here)))
        attempt(os.mkdir, f"deep/{name}/inner", 0o777, dir_fd=here)
        attempt(os.symlink, victim, f"deep/{name}.link", dir_fd=here)
    attempt(os.symlink, os.path.dirname(victim), "up", dir_fd=here)
    attempt(os.mkfifo, "fifo", 0o666, dir_fd=here)
furnish()
print("begun", flush=True)
while True:
    furnish()
    for _ in range(50):
        for name in (b"a", b"b", b"c", b"d"):
            libc.renameat2(here, b"deep/" + name, here, b"deep/" + name + b".link", 2)
        libc.renameat2(here, b"deep", here, b"up", 2)
        libc.renameat2(here, b"deep", here, b"up", 2)
"""


@pytest.fixture(scope="module")
def tree(run_directory: Path) -> Iterator[ControlTree]:
    with daemons(run_directory) as make:
        yield ControlTree(make())


@pytest.fixture
def pool(tree: ControlTree) -> Path:
    """Everybody's."""
    return tree.active_pool("<target><permissions><mode>0777</mode></permissions></target>")


@pytest.fixture
def canary(tree: ControlTree, pool: Path) -> Iterator[Path]:
    """A tree of root's and alice's outside the pool, of which nothing may change."""
    directory = tree.daemon.base / f"canary-{pool.name}"
    for place, mode, owner in (("", 0o755, 0), ("inner", 0o700, 1001), ("inner/deep", 0o711, 0)):
        (directory / place).mkdir()
        for name in ("file", "secret"):
            file = directory / place / name
            file.write_text(f"{name} of {place}")
            file.chmod(0o640)
        os.setxattr(directory / place, "user.canary", b"sings")
        os.chown(directory / place, owner, owner)
        (directory / place).chmod(mode)
    before = fingerprint(directory)
    yield directory
    assert fingerprint(directory) == before


def fingerprint(directory: Path) -> list[tuple[object, ...]]:
    """All that could have been changed of a tree: by whoever reads it nothing is."""
    found: list[tuple[object, ...]] = []
    for place in (directory, *sorted(directory.rglob("*"))):
        info = place.lstat()
        content = place.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        names = {name: os.getxattr(place, name) for name in os.listxattr(place)}
        numbers = (info.st_ino, info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_size)
        found.append((str(place), *numbers, info.st_mtime_ns, info.st_ctime_ns, content, names))
    return found


@contextmanager
def swapping(item: Path, victim: Path) -> Iterator[None]:
    """Let the item's owner do so meanwhile; he ends when this does."""
    process = subprocess.Popen(
        ("python3", "-c", SWAP, str(victim)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=item / "data",
        user=BOB.uid,
        group=BOB.gid,
        extra_groups=[],
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"begun\n"
        yield
        assert process.poll() is None, "he gave up"
    finally:
        process.kill()
        process.communicate()


def chown_and_back(item: Path) -> None:
    os.chown(item, 1001, 1001)
    os.chown(item, 1002, 1002)


def delete_and_purge(item: Path) -> None:
    item.rmdir()
    (item.parents[1] / "trash" / item.name).rmdir()


def delete_and_undelete(item: Path) -> None:
    item.rmdir()
    (item.parents[1] / "trash" / item.name).rename(item)


def snapshot_and_delete(item: Path) -> None:
    snapshot = item / "snapshots" / "v1"
    snapshot.mkdir()
    snapshot.rmdir()


def roll_back(item: Path) -> None:
    (item / "snapshots" / "v1").mkdir()
    request(item / "status", "rollback v1")


def adopt(item: Path) -> None:
    """Take the directory over anew that a lost definition left."""
    pool = item.parents[1]
    (pool / "root" / ".fspool" / "items" / f"{item.name}.xml").unlink()
    request(pool / "status", "refresh")
    request(
        pool.parents[1] / "define",
        f"<fs><name>{item.name}</name><source fspool='{pool.name}'/>"
        "<permissions><mode>0700</mode><owner>1001</owner></permissions></fs>",
    )


REQUESTS: dict[str, Callable[[Path], object]] = {
    "chown": chown_and_back,
    "chmod": lambda item: item.chmod(0o777),
    "measure": lambda item: request(item / "status", "measure"),
    "clone": lambda item: request(item / "status", "clone copy"),
    "snapshot": snapshot_and_delete,
    "roll back": roll_back,
    "rename": lambda item: item.rename(item.with_name("renamed")),
    "delete and undelete": delete_and_undelete,
    "delete and purge": delete_and_purge,
    "adopt": adopt,
}


@pytest.mark.parametrize("what", REQUESTS)
def test_nothing_outside_the_pool_is_touched(what: str, tree: ControlTree, pool: Path, canary: Path) -> None:
    done = 0
    for number in range(ROUNDS):
        item = pool / "items" / f"his{number}"
        sh('mkdir -m 777 "$1"', item, user=BOB)
        with swapping(item, canary):
            # What changes while it is copied may fail to be copied, but not each time.
            with suppress(OSError):
                REQUESTS[what](item)
                done += 1
            for one in ("copy", "renamed"):
                with suppress(OSError):
                    delete_and_purge(pool / "items" / one)
        with suppress(OSError):
            delete_and_purge(item)
    assert done
    assert (pool / "status").read_text().startswith("active")
    rubbish = (pool / "root" / ".fspool" / "purge").resolve()
    for left in (pool / "items", pool / "trash"):
        for name in os.listdir(left):
            (left / name).rmdir()
    for name in os.listdir(pool / "trash"):
        (pool / "trash" / name).rmdir()
    eventually(lambda: os.listdir(rubbish) == [], what="what was purged is gone")


def test_who_kept_his_directory_open_gets_nothing_of_what_comes_after_it(pool: Path, canary: Path) -> None:
    """His process stays in the directory while it is deleted and purged, and writes on."""
    item = pool / "items" / "his"
    sh('mkdir "$1"', item, user=BOB)
    kept = os.open(item / "data", os.O_RDONLY | os.O_DIRECTORY)
    try:
        delete_and_purge(item)
        sh('mkdir "$1"', item, user=ALICE)
        (item / "data" / "hers").touch()
        eventually(lambda: os.fstat(kept).st_nlink == 0, what="his directory is gone")
        with pytest.raises(FileNotFoundError):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=kept)
    finally:
        os.close(kept)
    assert os.listdir(item / "data") == ["hers"]


#: Opened by bob in his item, written after it was deleted and alice has made one of its name.
KEPT = """
exec 3> "$1/config.xml" 4> "$1/status" 5> "$1/job"
cd "$1" && echo open && read go
echo '<fs><name>same</name><permissions><mode>0777</mode></permissions></fs>' >&3 && echo defined
echo 'clone stolen' >&4 && echo cloned
echo cancel >&5 && echo cancelled
mkdir snapshots/v1 && echo taken
chmod 777 . && echo changed
echo measure > status && echo measured
exit 0
"""


def test_what_was_opened_in_a_deleted_item_is_not_its_successor_s(pool: Path) -> None:
    item = pool / "items" / "same"
    sh('mkdir "$1"', item, user=BOB)
    process = subprocess.Popen(
        ("bash", "-c", KEPT, "bash", str(item)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        user=BOB.uid,
        group=BOB.gid,
        extra_groups=[],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    item.rmdir()
    sh('mkdir -m 700 "$1"', item, user=ALICE)
    told, complaints = process.communicate("go\n", 60)
    assert told == "", complaints
    info = (item / "data").stat()
    assert (info.st_uid, info.st_mode & 0o7777) == (1001, 0o700)
    assert os.listdir(pool / "items") == ["same"]
    assert os.listdir(item / "snapshots") == []


def test_a_user_fills_neither_trash_nor_pool_where_his_items_are_counted(tree: ControlTree) -> None:
    pool = tree.active_pool(
        "<target><permissions><mode>1777</mode></permissions></target><quota user='1002' items='3'/>"
    )
    loop = 'for n in 1 2 3 4 5; do mkdir "$1/items/x" && rmdir "$1/items/x"; done'
    complaint = sh(loop, pool, user=BOB, check=False).stderr
    assert complaint.count("Disk quota exceeded") == 2
    assert len(os.listdir(pool / "trash")) == 3
    sh('mkdir "$1/items/hers"', pool, user=ALICE)
    sh('rmdir "$1"/trash/x && mkdir "$1/items/new"', pool, user=BOB)
    assert "Quota:          user 1002: 3 of 3 items\n" in (pool / "info").read_text()
    with pytest.raises(OSError, match="quota") as refused:
        os.chown(pool / "items" / "hers", 1002, 1002)
    assert refused.value.errno == errno.EDQUOT


def test_a_user_fills_neither_journal_nor_events_with_requests(tree: ControlTree) -> None:
    pool = tree.active_pool("<target><permissions><mode>1777</mode></permissions></target>")
    root, long = Path(os.readlink(pool / "root")), "n" * 190
    journal = root / ".fspool" / "journal"
    before = journal.stat()
    sh('mkdir "$1/items/x"', pool, user=BOB)
    # Each pair is journalled in some hundred bytes, and so many do not fit into it at once.
    there_and_back = f'mv "$1/items/x" "$1/items/{long}"; mv "$1/items/{long}" "$1/items/x"'
    sh(f"i=0; while [ $i -lt {PAIRS} ]; do {there_and_back}; i=$((i+1)); done", pool, user=BOB)
    after = journal.stat()
    assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks)
    with (tree.mount / "events").open() as events:
        os.set_blocking(events.fileno(), False)
        assert len(os.read(events.fileno(), 4 << 20)) <= KEPT_BYTES
    sh('mkdir "$1/items/hers"', pool, user=ALICE)
    assert sorted(os.listdir(pool / "items")) == ["hers", "x"]
