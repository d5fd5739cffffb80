"""Real storage that is full, read-only, frozen or gone, on file systems of the test's own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from support.daemon import Daemon, MakeDaemon
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import run
from support.trees import check_trash
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

MIB = 1 << 20
_numbers = count(1)


class Storage:
    """A file system in a file, mounted."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.image = directory.with_suffix(".img")
        self.mount = directory
        directory.mkdir()
        with self.image.open("wb") as image:
            image.truncate(megabytes * MIB)
        run("mkfs.ext4", "-q", "-F", "-m", "0", self.image)
        run("mount", "-o", "loop", self.image, directory)

    def fill(self) -> Path:
        """Leave not one block; removing the returned file makes room again."""
        ballast = self.mount / "ballast"
        with ballast.open("wb") as file:
            for size in (MIB, 4096, 1):
                with refused(errno.ENOSPC):
                    _write_for_ever(file.fileno(), b"x" * size)
        return ballast

    def remount(self, options: str) -> None:
        run("mount", "-o", f"remount,{options}", self.mount)

    def close(self) -> None:
        run("fsfreeze", "--unfreeze", self.mount, check=False)
        run("umount", "--lazy", self.mount, check=False)
        self.image.unlink()


def _write_for_ever(descriptor: int, data: bytes) -> None:
    while True:
        os.write(descriptor, data)


@pytest.fixture
def make_storage(run_directory: Path) -> Iterator[Callable[[int], Storage]]:
    made: list[Storage] = []

    def make(megabytes: int) -> Storage:
        made.append(Storage(run_directory / f"fs{next(_numbers)}", megabytes))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.mount.rmdir()


@pytest.fixture
def make_daemon(make_storage: Callable[[int], Storage], make_daemon: MakeDaemon) -> MakeDaemon:
    """Daemons that end before their storage goes, which would be one more fault."""
    return make_daemon


@pytest.fixture
def storage(make_storage: Callable[[int], Storage]) -> Storage:
    return make_storage(32)


def make_pool(daemon: Daemon, name: str, place: Path) -> Path:
    target = f"<target><path>{place}/pool</path></target>"
    request(daemon.mount / "define", f"<fspool type='dir'><name>{name}</name>{target}</fspool>")
    pool = daemon.mount / "pools" / name
    request(pool / "status", "start build")
    return pool


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


def check_consistent(pool: Path) -> None:
    """What is there is what is shown."""
    root = (pool / "root").resolve()
    found = names(pool / "items")
    assert names(root) == found | {".fspool"}
    assert {name.removesuffix(".xml") for name in names(root / ".fspool" / "items")} == found
    check_trash(root / ".fspool" / "trash", [value(entry / "uuid") for entry in (pool / "trash").iterdir()])


@needs_program("mkfs.ext4")
def test_a_full_pool_says_so_keeps_what_it_has_and_can_be_emptied(daemon: Daemon, storage: Storage) -> None:
    pool = make_pool(daemon, "tank", storage.mount)
    items = pool / "items"
    for name in ("web", "other"):
        (items / name).mkdir()
    (items / "web" / "data" / "file").write_text("hello")
    ballast = storage.fill()
    made: set[str] = set()
    with refused(errno.ENOSPC):
        for number in range(10_000):
            (items / f"new{number}").mkdir()
            made.add(f"new{number}")
    assert "No space left on device" in last_error(pool)
    assert names(items) == {"web", "other", *made}
    assert (items / "web" / "data" / "file").read_text() == "hello"
    if value(pool / "status") == "active":
        with refused(errno.ENOSPC):
            request(items / "web" / "status", "clone copy")
    # Making room helps at once, or with the start that the pool asks for.
    ballast.unlink()
    if value(pool / "status") != "active":
        request(pool / "status", "start")
    (items / "room").mkdir()
    (items / "web").rmdir()
    (items / "other").rename(items / "another")
    check_consistent(pool)
    request(pool / "status", "stop")
    request(pool / "status", "start")
    check_consistent(pool)


@needs_program("mkfs.ext4")
def test_in_a_full_pool_items_can_be_deleted(daemon: Daemon, storage: Storage) -> None:
    pool = make_pool(daemon, "tank", storage.mount)
    (pool / "items" / "web").mkdir()
    (pool / "items" / "web" / "data" / "big").write_bytes(b"x" * 4 * MIB)
    storage.fill()
    (pool / "items" / "web").rmdir()
    request(pool / "status", "stop")
    request(pool / "status", "start")
    assert names(pool / "items") == set()
    assert names(pool / "trash") == {"web"}
    (pool / "trash" / "web").rmdir()
    eventually(lambda: int(value(pool / "available")) > 3 * MIB, what="the room is there", timeout=20)
    check_consistent_but_for(pool, "ballast")


def check_consistent_but_for(pool: Path, strange: str) -> None:
    assert names((pool / "root").resolve()) - {strange} == names(pool / "items") | {".fspool"}


@needs_program("mkfs.ext4")
def test_a_read_only_pool_is_read_and_every_change_refused(daemon: Daemon, storage: Storage) -> None:
    daemon.expect_log("Read-only file system")
    pool = make_pool(daemon, "tank", storage.mount)
    items = pool / "items"
    (items / "web").mkdir()
    (items / "web" / "data" / "file").write_text("hello")
    # Files open for writing keep ext4 from it, as a broken disk would not.
    request(pool / "status", "stop")
    storage.remount("ro")
    with refused(errno.EROFS):
        request(pool / "status", "start")
    assert value(pool / "status") == "failed"
    assert "Read-only file system" in last_error(pool)
    assert "Read-only file system" in (pool / "info").read_text()
    storage.remount("rw")
    request(pool / "status", "start")
    assert (items / "web" / "data" / "file").read_text() == "hello"
    check_consistent(pool)


@needs_program("mkfs.ext4", "debugfs")
def test_a_file_system_that_goes_read_only_by_an_error_fails_its_pool(
    daemon: Daemon, storage: Storage
) -> None:
    """As the kernel does when it finds an ext4 damaged."""
    daemon.expect_log("Read-only file system|Input/output error|Structure needs cleaning")
    pool = make_pool(daemon, "tank", storage.mount)
    items = pool / "items"
    (items / "web").mkdir()
    (items / "web" / "data" / "file").write_text("hello")
    trigger = next(Path("/sys/fs/ext4").glob(f"{_device(storage.mount)}/trigger_fs_error"))
    run("mount", "-o", "remount,errors=remount-ro", storage.mount)
    trigger.write_text("a test")
    with refused(errno.EROFS, errno.EIO, errno.EUCLEAN):
        (items / "new").mkdir()
    with refused(errno.EROFS, errno.EIO, errno.EUCLEAN, errno.ENOMEDIUM):
        (items / "web").rmdir()
    assert (items / "web" / "data" / "file").read_text() == "hello" if names(items) else True
    with refused(errno.EROFS, errno.EIO, errno.EUCLEAN, errno.ENOMEDIUM):
        (items / "another").mkdir()


def _device(mount: Path) -> str:
    device = os.stat(mount).st_dev
    return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name


@pytest.fixture
def patient(make_daemon: MakeDaemon) -> Daemon:
    """A daemon that waits for a verb for no more than a moment."""
    return make_daemon("--grace", "0.3")


def freeze(storage: Storage) -> None:
    run("fsfreeze", "--freeze", storage.mount)


def unfreeze(storage: Storage) -> None:
    run("fsfreeze", "--unfreeze", storage.mount)


@needs_program("mkfs.ext4", "fsfreeze")
def test_a_pool_that_hangs_delays_no_other_and_goes_on_afterwards(
    patient: Daemon, make_storage: Callable[[int], Storage]
) -> None:
    slow_storage = make_storage(32)
    slow = make_pool(patient, "slow", slow_storage.mount)
    quick = make_pool(patient, "quick", make_storage(32).mount)
    for name in ("web", "old"):
        (slow / "items" / name).mkdir()
    (slow / "items" / "web" / "snapshots").stat()
    freeze(slow_storage)
    with refused(errno.EINPROGRESS):
        (slow / "items" / "new").mkdir()
    with refused(errno.EINPROGRESS):
        (slow / "items" / "old").rmdir()
    with refused(errno.EINPROGRESS):
        (slow / "items" / "web").rename(slow / "items" / "shop")
    for number in range(20):
        (quick / "items" / f"i{number}").mkdir()
    for number in range(20):
        (quick / "items" / f"i{number}").rmdir()
    request(quick / "status", "stop")
    request(quick / "status", "start")
    assert (slow / "info").read_text()
    assert value(slow / "status") == "active"
    assert value(slow / "items" / "new" / "status") == "creating"
    unfreeze(slow_storage)
    # What went on in the background is seen by who looks, also where the kernel had looked before.
    items = slow / "items"
    eventually(lambda: names(items) == {"shop", "new"}, what="all is done at last")
    eventually(lambda: value(items / "new" / "status") == "ready", what="the new item is ready")
    for gone in ("old", "web"):
        assert not (items / gone).exists(), gone
        with refused(errno.ENOENT):
            (items / gone / "status").read_text()
    (items / "shop" / "status").stat()
    (items / "web").mkdir()
    assert value(items / "web" / "status") == "ready"
    check_consistent(slow)


@needs_program("mkfs.ext4", "fsfreeze")
def test_looking_at_a_pool_that_hangs_takes_no_time(patient: Daemon, storage: Storage) -> None:
    pool = make_pool(patient, "tank", storage.mount)
    for number in range(10):
        (pool / "items" / f"i{number}").mkdir()
    freeze(storage)
    with refused(errno.EINPROGRESS):
        (pool / "items" / "new").mkdir()
    for _ in range(3):
        for item in (pool / "items").iterdir():
            for file in ("config.xml", "status", "info", "capacity", "uuid"):
                (item / file).read_text()
        for file in ("config.xml", "status", "info", "available", "features"):
            (pool / file).read_text()
    (patient.mount / "metrics").read_text()
    unfreeze(storage)
    eventually(lambda: value(pool / "items" / "new" / "status") == "ready", what="all is done at last")


@needs_program("mkfs.ext4", "fsfreeze")
def test_who_waits_for_a_pool_that_hangs_can_be_killed(patient: Daemon, storage: Storage) -> None:
    pool = make_pool(patient, "tank", storage.mount)
    (pool / "items" / "web").mkdir()
    freeze(storage)
    threads = []
    ends: list[int] = []

    def work(number: int) -> None:
        try:
            (pool / "items" / f"new{number}").mkdir()
        except OSError as error:
            ends.append(error.errno or 0)

    for number in range(8):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "every request is answered"
    assert ends == [errno.EINPROGRESS] * 8
    unfreeze(storage)
    eventually(
        lambda: {value(item / "status") for item in (pool / "items").iterdir()} == {"ready"},
        what="all are made",
    )
    check_consistent(pool)


def test_a_pool_whose_directory_is_removed_fails_and_lets_everything_go(daemon: Daemon) -> None:
    daemon.expect_log("has failed")
    place = daemon.base / "place"
    place.mkdir()
    pool = make_pool(daemon, "tank", place)
    (pool / "items" / "web").mkdir()
    descriptors = Path(f"/proc/{daemon.process.pid}/fd")
    run("rm", "-r", place / "pool")
    with refused(errno.ENOENT, errno.ESTALE, errno.EIO):
        (pool / "items" / "new").mkdir()
    eventually(lambda: value(pool / "status") == "failed", what="the pool says failed")
    assert last_error(pool)
    pool.rmdir()
    eventually(
        lambda: not [one for one in descriptors.iterdir() if str(place) in _target(one)],
        what="nothing of it is held open",
    )
    pool = make_pool(daemon, "tank", place)
    (pool / "items" / "web").mkdir()


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:  # closed since it was listed
        return ""


@needs_program("mkfs.ext4")
def test_a_file_system_that_vanished_from_its_pool_gets_no_items_on_the_disk_below(
    daemon: Daemon, storage: Storage
) -> None:
    """An unmounted pool must not fill the file system that its mount point lies on."""
    daemon.expect_log("tank")
    pool = make_pool(daemon, "tank", storage.mount)
    (pool / "items" / "web").mkdir()
    request(pool / "status", "stop")
    run("umount", storage.mount)
    with refused(errno.ENOENT, errno.EEXIST, errno.EIO, errno.ESTALE):
        request(pool / "status", "start")
    assert os.listdir(storage.mount) == []
    run("mount", "-o", "loop", storage.image, storage.mount)
    request(pool / "status", "start")
    assert names(pool / "items") == {"web"}
