"""Pools on CephFS through a real daemon: limits, usage, snapshots in every order, credentials."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.ceph_pools import Stage, becomes, define, do, features
from support import ceph
from support.ceph import Cluster, new_key
from support.daemon import Daemon, daemons
from support.shell import as_user, run
from support.sshd import own_places
from support.wait import eventually

pytestmark = ceph.MARKS

MIB = 1 << 20


@pytest.fixture(scope="module")
def _shared_stage(_shared_cluster: Cluster, run_directory: Path) -> Iterator[Stage]:
    with own_places(), daemons(run_directory) as make:
        made = define(_shared_cluster, make())
        do(made.pool, "start build")
        yield made
        do(made.pool, "destroy")


@pytest.fixture
def stage(_shared_stage: Stage) -> Iterator[Stage]:
    """A pool that tests share; nothing of their items is left when they have ended."""
    yield _shared_stage
    for item in (_shared_stage.pool / "items").iterdir():
        item.rmdir()
    eventually(lambda: _shared_stage.leftovers() == set(), what="nothing is left of the items")


def text(snapshot: Path) -> str:
    """What the file holds in a snapshot, found as a person finds it."""
    return (snapshot / "data/file").read_text()


# Life, limits and usage.


def test_secret_is_told_nowhere_and_is_no_longer_on_the_disk(stage: Stage) -> None:
    secrets = [path.read_text() for path in stage.cluster.base.glob("secret-*")]
    assert secrets
    told = stage.daemon.log + (stage.pool / "config.xml").read_text() + run("ps", "-eo", "args").stdout
    assert not any(secret in told for secret in secrets)
    assert list(Path("/run/fspoolfs/ceph").iterdir()) == []


def test_features_tell_that_limits_are_advisory_and_snapshots_instant(stage: Stage) -> None:
    told = features(stage.pool)
    assert told["filesystem"] == "ceph"
    assert "advisory" in told["quota"]
    assert "second late" in told["usage"]
    assert "at once" in told["snapshot"]


def test_capacity_is_a_quota_that_writers_feel(stage: Stage) -> None:
    request(
        stage.daemon.mount / "define",
        "<fs><name>web</name><source fspool='tank'/><capacity>8388608</capacity></fs>",
    )
    place = stage.root / "web"
    assert os.getxattr(place, "ceph.quota.max_bytes") == b"8388608"
    wrote = run("dd", "if=/dev/zero", f"of={place}/full", "bs=1M", "count=200", "oflag=sync", check=False)
    assert "quota exceeded" in wrote.stderr
    assert (place / "full").stat().st_size < 64 * MIB
    eventually(lambda: int(value(stage.item("web") / "allocation")) >= 7 * MIB, what="the bytes are counted")
    with refused(errno.EBUSY):
        request(stage.item("web") / "capacity", str(MIB))
    request(stage.item("web") / "capacity", "1G")
    assert os.getxattr(place, "ceph.quota.max_bytes") == str(1 << 30).encode()
    request(stage.item("web") / "capacity", "none")
    with refused(errno.ENODATA):
        os.getxattr(place, "ceph.quota")


def test_number_of_files_is_limited(stage: Stage) -> None:
    request(stage.daemon.mount / "define", "<fs><name>web</name><source fspool='tank'/><files>5</files></fs>")
    place = stage.root / "web"

    def cannot_make_more() -> bool:
        made = run("touch", place / str(len(os.listdir(place))), check=False)
        return "quota exceeded" in made.stderr

    eventually(cannot_make_more, what="no more files can be made")


def test_items_are_moved_trashed_and_seen_by_another_client(ceph: Cluster, daemon: Daemon) -> None:
    stage = define(ceph, daemon, more="<trash retention='1h'/>")
    do(stage.pool, "start build")
    stage.new_item("web")
    with stage.elsewhere() as place:
        assert (place / "web/file").read_text() == "first"
        (place / "web/file").write_text("from elsewhere")
        assert (stage.item("web") / "data/file").read_text() == "from elsewhere"
        stage.item("web").rename(stage.item("db"))
        assert (place / "db/file").read_text() == "from elsewhere"
        stage.item("db").rmdir()
        assert not (place / "db").exists()
        (stage.pool / "trash/db").rename(stage.item("db"))
        assert (place / "db/file").read_text() == "from elsewhere"
    do(stage.pool, "stop")


# Snapshots.


def test_snapshot_is_read_only_and_follows_its_item(stage: Stage) -> None:
    stage.new_item("web")
    snapshot = stage.snapshot("web", "one")
    (stage.item("web") / "data/file").write_text("second")
    assert text(snapshot) == "first"
    with refused(errno.EROFS):
        (snapshot / "data/file").write_text("never")
    stage.item("web").rename(stage.item("db"))
    assert text(stage.item("db") / "snapshots/one") == "first"
    (stage.item("db") / "snapshots/one").rename(stage.item("db") / "snapshots/uno")
    assert text(stage.item("db") / "snapshots/uno") == "first"


def test_owner_reads_the_snapshots_of_an_item(stage: Stage) -> None:
    owner = as_user(4711)
    request(
        stage.daemon.mount / "define",
        "<fs><name>web</name><source fspool='tank'/><permissions><mode>0700</mode><owner>4711</owner>"
        "<group>4711</group></permissions></fs>",
    )
    (stage.root / "web/file").write_text("mine")
    os.chown(stage.root / "web/file", 4711, 4711)
    snapshot = stage.snapshot("web", "one")
    assert run("cat", snapshot / "data/file", user=owner).stdout == "mine"
    assert run("cat", snapshot / "data/file", user=as_user(4712), check=False).returncode
    request(stage.item("web") / "status", "rollback one")
    kept = next(path for path in (stage.item("web") / "snapshots").iterdir() if path.name != "one")
    kept.rmdir()
    eventually(lambda: "/.fspool/" not in os.readlink(snapshot / "data"), what="it lies in the open")
    assert run("cat", snapshot / "data/file", user=owner).stdout == "mine"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_snapshots_go_in_any_order_and_leave_nothing(stage: Stage, order: tuple[int, ...]) -> None:
    stage.new_item("web")
    for number in range(3):
        (stage.item("web") / "data/file").write_text(str(number))
        stage.snapshot("web", f"s{number}")
    left = set(range(3))
    for number in order:
        (stage.item("web") / f"snapshots/s{number}").rmdir()
        left.remove(number)
        assert {text(stage.item("web") / f"snapshots/s{one}") for one in left} == {str(one) for one in left}
    eventually(lambda: os.listdir(stage.root / "web/.snap") == [], what="the snapshots are gone")
    stage.item("web").rmdir()
    eventually(lambda: stage.leftovers() == set(), what="nothing is left of the item")


def test_rollback_keeps_the_snapshots_before_it_and_what_it_replaced(stage: Stage) -> None:
    stage.new_item("web")
    old = stage.snapshot("web", "old")
    (stage.item("web") / "data/file").write_text("second")
    request(stage.item("web") / "status", "rollback old")
    assert (stage.item("web") / "data/file").read_text() == "first"
    kept = next(path for path in (stage.item("web") / "snapshots").iterdir() if path.name != "old")
    assert (text(old), text(kept)) == ("first", "second")
    new = stage.snapshot("web", "new")
    kept.rmdir()
    eventually(lambda: os.listdir(stage.root / ".fspool/purge") == [], what="what was replaced is emptied")
    assert (text(old), text(new)) == ("first", "first")
    request(stage.item("web") / "status", "rollback old")
    assert (stage.item("web") / "data/file").read_text() == "first"
    stage.item("web").rmdir()
    eventually(lambda: stage.leftovers() == set(), what="nothing is left of the item")


def test_deleted_item_comes_back_with_its_snapshots(ceph: Cluster, daemon: Daemon) -> None:
    stage = define(ceph, daemon, more="<trash retention='1h'/>")
    do(stage.pool, "start build")
    stage.new_item("web")
    stage.snapshot("web", "one")
    stage.item("web").rmdir()
    (stage.pool / "trash/web").rename(stage.item("db"))
    assert text(stage.item("db") / "snapshots/one") == "first"
    stage.item("db").rmdir()
    (stage.pool / "trash/db").rmdir()
    eventually(lambda: stage.leftovers() == set(), what="nothing is left of the item")
    do(stage.pool, "stop")


def test_clones_are_of_one_moment_and_on_their_own(stage: Stage) -> None:
    stage.new_item("web")
    stage.snapshot("web", "one")
    (stage.item("web") / "data/file").write_text("second")
    request(stage.item("web") / "status", "clone copy")
    request(stage.item("web") / "status", "clone old one")
    for name, held in (("copy", "second"), ("old", "first")):
        eventually(lambda name=name: stage.item(name).exists(), what=f"{name} is there")
        assert (stage.item(name) / "data/file").read_text() == held
        (stage.item(name) / "data/file").write_text("changed")
        assert os.listdir(stage.root / name / ".snap") == []
    eventually(lambda: len(os.listdir(stage.root / "web/.snap")) == 1, what="only the snapshot is left")


def test_snapshots_that_users_took_keep_nothing_from_being_purged(stage: Stage) -> None:
    place = Path(os.readlink(stage.new_item("web") / "data"))
    (place / "a/b/c").mkdir(parents=True)
    for directory in ("", "a", "a/b", "a/b/c"):
        (place / directory / ".snap/theirs").mkdir()
    stage.item("web").rmdir()
    eventually(lambda: stage.leftovers() == set(), what="nothing is left of the item")


def test_snapshot_beyond_the_servers_limit_is_refused_in_words(stage: Stage) -> None:
    stage.new_item("web")
    for number in range(100):
        (stage.root / f"web/.snap/{number}").mkdir()
    with refused(errno.EMLINK):
        stage.snapshot("web", "one")
    assert "mds_max_snaps_per_dir" in last_error(stage.item("web"))
    assert not (stage.item("web") / "snapshots/one").exists()
    eventually(lambda: os.listdir(stage.root / ".fspool/staging") == [], what="nothing is left of it")


def test_snapshot_is_found_when_its_record_is_lost_or_wrong(stage: Stage) -> None:
    stage.new_item("web")
    snapshot = stage.snapshot("web", "one")
    records = stage.root / ".fspool/ceph"
    (record,) = records.iterdir()
    record.unlink()
    assert text(snapshot) == "first"
    assert os.readlink(record) == "web"
    record.unlink()
    record.symlink_to("nowhere")
    assert text(snapshot) == "first"
    (stage.root / "web").rename(stage.root / "moved")
    (stage.root / "moved").rename(stage.root / "web")
    snapshot.rmdir()
    eventually(lambda: os.listdir(stage.root / "web/.snap") == [], what="the snapshot is gone")


def test_snapshot_in_the_making_when_the_daemon_died_goes_at_the_next_start(stage: Stage) -> None:
    stage.new_item("web")
    stage.snapshot("web", "one")
    own = stage.root / ".fspool"
    (stub,) = next((own / "snapshots").iterdir()).iterdir()
    stage.daemon.kill()
    # As it was just before it got its name.
    stub.rename(own / "staging/interrupted")
    stage.daemon.start()
    becomes(stage.pool, "active")
    assert os.listdir(stage.item("web") / "snapshots") == []
    eventually(lambda: os.listdir(stage.root / "web/.snap") == [], what="the snapshot is gone")
    assert (stage.item("web") / "data/file").read_text() == "first"


# Credentials.


def test_what_credentials_do_not_allow_is_told_as_a_reason(ceph: Cluster, daemon: Daemon) -> None:
    stage = define(ceph, daemon, granted="rw")
    do(stage.pool, "start build")
    told = features(stage.pool)
    for name in ("quota", "files", "resize"):
        assert told[name].startswith("no (this host's credentials do not allow quotas (capability p")
    assert "copies the whole item" in told["snapshot"]
    assert "capability s" in told["snapshot"]
    stage.new_item("web")
    with refused(errno.EOPNOTSUPP):
        request(stage.item("web") / "capacity", "1G")
    assert "capability p" in last_error(stage.item("web"))
    snapshot = stage.snapshot("web", "copied")
    eventually(lambda: "being made" not in (snapshot / "info").read_text(), what="the copy is made")
    (stage.item("web") / "data/file").write_text("second")
    assert text(snapshot) == "first"
    assert stat.S_ISDIR((snapshot / "data").stat().st_mode)
    do(stage.pool, "stop")


def test_wrong_secret_is_refused_in_words(ceph: Cluster, daemon: Daemon) -> None:
    stage = define(ceph, daemon)
    for secret in ceph.base.glob("secret-t*"):
        secret.write_text(new_key())
    daemon.expect_log("does not let client")
    with suppress(OSError):  # it may go on as a job
        request(stage.pool / "status", "start build")
    # Its client tries on for as long as it waits for servers.
    eventually(lambda: "ceph fs authorize" in last_error(stage.pool), what="it is refused", timeout=90.0)
    assert value(stage.pool / "status") in ("inactive", "failed")
