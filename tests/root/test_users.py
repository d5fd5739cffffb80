"""Users other than root: who may do what in a pool, and a daemon that a user runs."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import ControlTree, request
from support.daemon import PROJECT, Daemon, MakeDaemon, daemons
from support.needs import needs_fuse, needs_program, needs_root, skip_unless_runnable
from support.shell import User, as_user, run, sh
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

ROOT = as_user(0)
ALICE = as_user(1001)
BOB = as_user(1002)
#: Of alice's group.
MEMBER = as_user(1003, 1001)
WHO = {"root": ROOT, "alice": ALICE, "member": MEMBER, "bob": BOB}


@pytest.fixture(scope="module")
def shared(run_directory: Path) -> Iterator[ControlTree]:
    with daemons(run_directory) as make:
        yield ControlTree(make())


def permissions(mode: str, owner: int = 1001, group: int = 1001) -> str:
    return (
        f"<target><permissions><mode>{mode}</mode><owner>{owner}</owner><group>{group}</group>"
        "</permissions></target>"
    )


def pool_of(tree: ControlTree, mode: str, **whose: int) -> Path:
    return tree.active_pool(permissions(mode, **whose))


def attempt(script: str, *arguments: str | Path, user: User) -> str:
    """Empty when the line of shell did what it should, else what it complained of."""
    result = sh(script, *arguments, user=user, check=False)
    assert (result.returncode == 0) == (result.stderr == ""), (result.returncode, result.stderr)
    return result.stderr


DENIED = ("Permission denied", "Operation not permitted")

#: What: a line of shell with the pool's directory as $1, and who may. `hers` is alice's item.
TABLE: dict[str, tuple[str, set[str]]] = {
    "create an item": ("mkdir $1/items/new", {"root", "alice", "member"}),
    "delete an item": ("rmdir $1/items/hers", {"root", "alice", "member"}),
    "rename an item": ("mv $1/items/hers $1/items/new", {"root", "alice", "member"}),
    "define an item": (
        "echo \"<fs><name>new</name><source fspool='${1##*/}'/></fs>\" > $1/../../define",
        {"root", "alice", "member"},
    ),
    "look at an item": ("cat $1/items/hers/config.xml $1/items/hers/info > /dev/null", set(WHO)),
    "look at a pool": ("cat $1/config.xml $1/info $1/available > /dev/null", set(WHO)),
    "measure an item": ("echo measure > $1/items/hers/status", {"root", "alice"}),
    "clone an item": ("echo 'clone new' > $1/items/hers/status", {"root", "alice"}),
    "cancel a job": ("echo measure > $1/items/hers/job || echo cancel > $1/items/hers/job", set()),
    "redefine an item": (
        "echo '<fs><name>hers</name><permissions><mode>0711</mode></permissions></fs>'"
        " > $1/items/hers/config.xml",
        {"root", "alice"},
    ),
    "chmod an item": ("chmod 700 $1/items/hers", {"root", "alice"}),
    "give an item away": ("chown 1002 $1/items/hers", {"root"}),
    "give an item to an own group": ("chgrp 1001 $1/items/hers", {"root", "alice"}),
    "give an item to another group": ("chgrp 1002 $1/items/hers", {"root"}),
    "use an item": ("touch $1/items/hers/data/file", {"root", "alice"}),
    "leave the pool by a path": (
        "echo \"<fs><name>new</name><source fspool='${1##*/}'/><target><path>/../x</path></target></fs>\""
        " > $1/../../define",
        set(),
    ),
    "purge an item": ("rmdir $1/trash/old", {"root", "alice", "member"}),
    "bring an item back": ("mv $1/trash/old $1/items/old", {"root", "alice"}),
    "take a snapshot": ("mkdir $1/items/hers/snapshots/v1", {"root", "alice"}),
    "roll an item back": (
        "mkdir $1/items/hers/snapshots/v1 && echo 'rollback v1' > $1/items/hers/status", {"root", "alice"},
    ),
    "map an item's ids": (
        "echo '<fs><name>hers</name><idmap><uid start=\"0\" target=\"1000\" count=\"1\"/>"
        "<gid start=\"0\" target=\"1000\" count=\"1\"/></idmap></fs>' > $1/items/hers/config.xml",
        {"root"},
    ),
    "set a quota": (
        "sed 's:</fspool>:<quota items=\"9\"/></fspool>:' $1/config.xml | tee $1/config.xml > /dev/null",
        {"root"},
    ),
    "refresh a pool": ("echo refresh > $1/status", {"root"}),
    "put a file into an item's directory": ("echo x > $1/items/hers/file", set()),
    "redefine the pool": ("cat $1/config.xml | tee $1/config.xml > /dev/null", {"root"}),
    "redefine the pool by define": (
        "echo \"<fspool type='dir'><name>${1##*/}</name></fspool>\" > $1/../../define", {"root"},
    ),
    "chmod the pool's items": ("chmod 777 $1/items", set()),
    "stop a pool": ("echo stop > $1/status", {"root"}),
    "set autostart": ("echo 1 > $1/autostart", {"root"}),
    "define a pool": ("mkdir $1-new", {"root"}),
    "define a pool by a document": (
        "echo \"<fspool type='dir'><name>${1##*/}-x</name></fspool>\" > $1/../../define", {"root"},
    ),
    "undefine a pool": ("echo stop > $1/status; rmdir $1", {"root"}),
    "enter the pool's own directory": ("ls $1/root/.fspool", {"root"}),
    "exchange what lies in the pool": ("mv $1/root/hers $1/root/gone", {"root"}),
}  # fmt: skip


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("what", TABLE)
def test_in_a_pool_of_alice_and_her_group(what: str, who: str, shared: ControlTree) -> None:
    script, allowed = TABLE[what]
    pool = pool_of(shared, "0775")
    for name in ("hers", "old"):
        assert attempt('mkdir "$1"', pool / "items" / name, user=ALICE) == ""
    assert attempt('rmdir "$1"', pool / "items" / "old", user=ALICE) == ""
    complaint = attempt(script, pool, user=WHO[who])
    if who in allowed:
        assert complaint == ""
    else:
        expected = (*DENIED, "Invalid argument") if not allowed else DENIED
        assert any(one in complaint for one in expected), complaint


def test_an_item_s_size_is_the_pool_owner_s_to_say(shared: ControlTree) -> None:
    pool = pool_of(shared, "0777")
    assert attempt('mkdir "$1"', pool / "items" / "his", user=BOB) == ""
    line = 'echo 1G > "$1"'
    capacity = pool / "items" / "his" / "capacity"
    assert "Permission denied" in attempt(line, capacity, user=BOB)
    # The owner gets through to the storage, which has no limit to set.
    assert "Operation not supported" in attempt(line, capacity, user=ALICE)
    define = f"<fs><name>big</name><capacity unit='G'>1</capacity><source fspool='{pool.name}'/></fs>"
    assert "Permission denied" in attempt('echo "$2" > "$1"', shared.define, define, user=BOB)
    assert "user 1002" not in os.listdir(pool / "items")


def test_what_a_user_makes_is_his_in_the_tree_and_in_the_pool(shared: ControlTree) -> None:
    pool = pool_of(shared, "0777", owner=0, group=0)
    assert attempt('umask 027; mkdir "$1"', pool / "items" / "his", user=BOB) == ""
    for directory in (pool / "items" / "his", pool / "items" / "his" / "data"):
        info = directory.stat()
        assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (1002, 1002, 0o750)
    assert (
        attempt('echo x > "$1/data/file"; cat "$1/info" > /dev/null', pool / "items" / "his", user=BOB) == ""
    )
    assert "Permission denied" in attempt('ls "$1/data/"', pool / "items" / "his", user=ALICE)


def test_in_a_set_group_id_pool_items_get_the_group_of_the_pool(shared: ControlTree) -> None:
    pool = pool_of(shared, "2775", owner=0, group=1001)
    assert attempt('mkdir "$1"', pool / "items" / "shared", user=MEMBER) == ""
    info = (pool / "items" / "shared" / "data").stat()
    assert (info.st_uid, info.st_gid) == (1003, 1001)


def test_a_sticky_pool_behaves_as_tmp_does(shared: ControlTree) -> None:
    pool = pool_of(shared, "1777", owner=0, group=0)
    items, trash = pool / "items", pool / "trash"
    assert (items.stat().st_mode & 0o7777) == 0o1777
    for user, name in ((ALICE, "hers"), (BOB, "his")):
        assert attempt('mkdir "$1"', items / name, user=user) == ""
    for line in ('rmdir "$1"', 'mv "$1" "$1-new"', 'chmod 777 "$1"', 'mkdir "$1/x"'):
        assert any(one in attempt(line, items / "hers", user=BOB) for one in DENIED), line
    assert attempt('mv "$1" "$1-new" && rmdir "$1-new"', items / "his", user=BOB) == ""
    assert any(one in attempt('rmdir "$1"', trash / "his-new", user=ALICE) for one in DENIED)
    line = 'mv "$1" "$2"'
    assert any(one in attempt(line, trash / "his-new", items / "stolen", user=ALICE) for one in DENIED)
    assert attempt(line, trash / "his-new", items / "back", user=BOB) == ""
    assert (items / "back").stat().st_uid == 1002
    assert attempt('rmdir "$1"', items / "back", user=BOB) == ""
    assert attempt('rmdir "$1"', trash / "back", user=BOB) == ""


def test_nobody_reaches_what_is_private_through_a_pool(shared: ControlTree) -> None:
    pool = pool_of(shared, "0700")
    assert attempt('mkdir "$1"', pool / "items" / "hers", user=ALICE) == ""
    for line in ('ls "$1/items"', 'ls "$1/trash"', 'cat "$1/items/hers/config.xml"', 'stat "$1/items/hers"'):
        assert "Permission denied" in attempt(line, pool, user=BOB), line


def test_a_user_cannot_take_a_directory_over_that_is_another_s(shared: ControlTree) -> None:
    pool = pool_of(shared, "0777", owner=0, group=0)
    secret = (pool / "root").resolve() / "secret"
    secret.mkdir(mode=0o700)
    (secret / "key").write_text("root's")
    document = (
        f"<fs><name>secret</name><source fspool='{pool.name}'/>"
        "<permissions><mode>0777</mode><owner>1002</owner></permissions></fs>"
    )
    assert "Permission denied" in attempt('echo "$2" > "$1"', shared.define, document, user=BOB)
    assert secret.stat().st_mode & 0o777 == 0o700
    assert secret.stat().st_uid == 0


def test_a_link_in_an_item_leads_the_daemon_nowhere(shared: ControlTree) -> None:
    """Its owner may put what he likes into it; clones, counts and deletions stay inside."""
    pool = pool_of(shared, "0777")
    victim = shared.daemon.base / f"victim-{pool.name}"
    victim.mkdir()
    (victim / "file").write_text("precious")
    item = pool / "items" / "his"
    assert attempt('mkdir "$1" && ln -s "$2" "$1/data/link"', item, victim, user=BOB) == ""
    request(item / "status", "measure")
    request(item / "status", "clone copy")
    assert os.readlink(pool / "items" / "copy" / "data" / "link") == str(victim)
    for name in ("his", "copy"):
        (pool / "items" / name).rmdir()
        (pool / "trash" / name).rmdir()
    assert (victim / "file").read_text() == "precious"
    document = (
        f"<fs><name>new</name><source fspool='{pool.name}'/><target><path>/out/new</path></target></fs>"
    )
    os.symlink(victim, (pool / "root").resolve() / "out")
    assert attempt('echo "$2" > "$1"', shared.define, document, user=BOB)
    assert os.listdir(victim) == ["file"]


# -- a daemon that a user runs --------------------------------------------------------------------


@pytest.fixture
def fuse_for_all(run_directory: Path) -> Iterator[None]:
    """Let users open /dev/fuse, as udev does where it runs; for this mount namespace alone."""
    if stat.S_IMODE(os.stat("/dev/fuse").st_mode) & 0o006 == 0o006:
        yield
        return
    node = run_directory / "fuse"
    os.mknod(node, stat.S_IFCHR | 0o666, os.stat("/dev/fuse").st_rdev)
    node.chmod(0o666)
    run("mount", "--bind", node, "/dev/fuse")
    yield
    run("umount", "/dev/fuse")
    node.unlink()


@pytest.fixture
def own_daemon(fuse_for_all: None, make_daemon: MakeDaemon) -> Daemon:
    """Of user 1000, who alone can look into its tree."""
    skip_unless_runnable(as_user(1000))
    return make_daemon(user=as_user(1000))


@needs_program("fusermount3")
def test_a_user_runs_a_daemon_of_his_own(own_daemon: Daemon) -> None:
    user = as_user(1000)

    def line(script: str) -> str:
        return sh(f"cd {own_daemon.mount} && {{ {script}; }}", user=user).stdout

    line("mkdir pools/tank && echo start build > pools/tank/status")
    line("mkdir pools/tank/items/web && echo hello > pools/tank/items/web/data/file")
    line("echo 'clone copy' > pools/tank/items/web/status")
    assert line("cat pools/tank/items/copy/data/file") == "hello\n"
    line("mv pools/tank/items/copy pools/tank/items/shop && chmod 700 pools/tank/items/shop")
    line("rmdir pools/tank/items/web && rmdir pools/tank/trash/web")
    real = own_daemon.storage / "pools" / "tank" / "shop"
    info = real.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (1000, 1000, 0o700)
    assert line("cat pools/tank/items/shop/users") == ""
    own_daemon.kill(unmount=False)
    run("fusermount3", "-u", "-z", own_daemon.mount, user=user)
    own_daemon.start()
    eventually(lambda: line("cat pools/tank/status") == "active\n", what="the pool is active again")
    assert line("ls pools/tank/items") == "shop\n"
    line("echo stop > pools/tank/status && rmdir pools/tank")


@needs_program("fusermount3")
def test_a_user_s_daemon_clears_what_it_left_mounted(own_daemon: Daemon) -> None:
    own_daemon.kill(unmount=False)
    own_daemon.start()
    assert run("cat", own_daemon.mount / "version", user=as_user(1000)).stdout


@needs_program("fusermount3")
def test_a_user_who_may_not_let_others_in_is_told_why(own_daemon: Daemon) -> None:
    if re.search(r"^\s*user_allow_other", Path("/etc/fuse.conf").read_text(), re.MULTILINE):
        pytest.skip("this host lets users let others in")
    own_daemon.stop()
    arguments = (own_daemon.mount, "--state-dir", own_daemon.state, "--allow-other")
    result = run(
        sys.executable, "-m", "fspoolfs", "mount", *arguments, user=as_user(1000), check=False, cwd=PROJECT
    )
    assert result.returncode == 1
    assert "user_allow_other" in result.stderr


@needs_program("fusermount3")
def test_a_user_s_daemon_gives_nothing_to_others(own_daemon: Daemon) -> None:
    user = as_user(1000)
    script = f"cd {own_daemon.mount} && mkdir pools/tank && echo start build > pools/tank/status"
    sh(f"{script} && mkdir pools/tank/items/web", user=user)
    document = "<fs><name>x</name><source fspool='tank'/><permissions><owner>1001</owner></permissions></fs>"
    complaint = attempt('echo "$2" > "$1/define"', own_daemon.mount, document, user=user)
    assert "Permission denied" in complaint
    error = run("cat", own_daemon.mount / "pools" / "tank" / "last_error", user=user).stdout
    assert "the daemon runs as user 1000" in error
    assert any(
        one in attempt('chown 1001 "$1"', own_daemon.mount / "pools/tank/items/web", user=user)
        for one in DENIED
    )
    # Nobody else looks into it: not even root, whom FUSE keeps out of what it does not own.
    assert "Permission denied" in attempt('ls "$1"', own_daemon.mount, user=BOB)
