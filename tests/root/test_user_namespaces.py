"""User namespaces: items whose files appear to be a container's, and a container that manages a pool."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from root.containers import Container, Place, make_root, runc
from support.daemon import Daemon, MakeDaemon, daemons
from support.machine import is_mounted
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import as_user, run, sh
from support.userns import COUNT, FIRST, PLACE, in_container
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, needs_program("unshare", "setpriv"), pytest.mark.required]

ALICE = as_user(1001)
IDMAP = (
    f"<idmap><uid start='0' target='{FIRST}' count='{COUNT}'/>"
    f"<gid start='0' target='{FIRST}' count='{COUNT}'/></idmap>"
)


@pytest.fixture(scope="module")
def tree(run_directory: Path) -> Iterator[ControlTree]:
    with daemons(run_directory) as make:
        yield ControlTree(make())


def mapped_item(tree: ControlTree, pool: Path, name: str = "web") -> Path:
    request(tree.define, f"<fs><name>{name}</name><source fspool='{pool.name}'/>{IDMAP}</fs>")
    return pool / "items" / name


def owner(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_uid, info.st_gid


def mounts_below(directory: Path) -> list[str]:
    return [
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4].startswith(f"{directory}/")
    ]


# -- mapped items ---------------------------------------------------------------------------------


def test_a_container_s_root_owns_what_is_root_s_in_a_mapped_item(tree: ControlTree) -> None:
    item = mapped_item(tree, tree.active_pool())
    (item / "data" / "before").touch()
    line = (
        'cd "$1" && stat -c %u before . && touch after && chown 33:34 after && ls -n after | cut -d" " -f3,4'
    )
    assert in_container(line, os.readlink(item / "idmapped")).stdout.split() == ["0", "0", "33", "34"]
    assert owner(item / "data" / "after") == (33, 34)
    assert owner(item / "data" / "before") == (0, 0)
    # What is not mapped stays as it was: there the same files are nobody's.
    assert in_container('stat -c %u "$1"', os.path.realpath(item / "data")).stdout.strip() == "65534"


@needs_program("runc", "busybox")
def test_a_runtime_takes_a_mapped_item_into_a_user_namespace(tree: ControlTree, run_directory: Path) -> None:
    item = mapped_item(tree, tree.active_pool())
    directory = run_directory / "runc"
    directory.mkdir()
    place = Place(directory, make_root(directory / "root"))
    run("chown", "-R", f"{FIRST}:{FIRST}", place.root)
    script = "echo hello > /data/file; ls -n /data/file | tr -s ' ' | cut -d' ' -f3,4; read go || true"
    container = Container(runc(place, Path(os.readlink(item / "idmapped")), script, ids=(FIRST, COUNT)))
    try:
        eventually(
            lambda: (item / "data" / "file").exists() or not container.is_running, what="it has written"
        )
        assert container.is_running, container.end()
        assert (item / "users").read_text().endswith(" /data\n")
        with refused(errno.EBUSY):
            item.rmdir()
        assert container.end().split() == ["0", "0"]
    finally:
        container.close()
        run("rm", "-r", "-f", "--one-file-system", "--", directory)
    assert (item / "data" / "file").read_text() == "hello\n"
    assert owner(item / "data" / "file") == (0, 0)


def test_nothing_of_an_item_is_used_by_its_own_mapping(tree: ControlTree) -> None:
    pool = tree.active_pool()
    item = mapped_item(tree, pool)
    at = Path(os.readlink(item / "idmapped"))
    (item / "data" / "file").touch()
    # The host's root is none of those that are mapped: such a directory takes nothing from him.
    with refused(errno.EOVERFLOW):
        (at / "other").touch()
    assert is_mounted(at)
    assert (item / "users").read_text() == ""
    item.rename(pool / "items" / "new")
    item = pool / "items" / "new"
    assert os.readlink(item / "idmapped") == str(at)
    assert (at / "file").exists()
    item.rmdir()
    assert not at.exists()
    (pool / "trash" / "new").rename(item)
    assert (item / "idmapped" / "file").exists()
    request(pool / "status", "stop")
    assert mounts_below(at.parent) == []
    assert not at.parent.exists()


def test_what_is_bound_from_a_mapped_item_keeps_it(tree: ControlTree, tmp_path: Path) -> None:
    pool = tree.active_pool()
    item = mapped_item(tree, pool)
    run("mount", "--bind", os.readlink(item / "idmapped"), tmp_path)
    try:
        assert str(tmp_path) in (item / "users").read_text()
        with refused(errno.EBUSY):
            item.rmdir()
        with refused(errno.EBUSY):
            request(pool / "status", "stop")
        request(tree.define, f"<fs><name>web</name><source fspool='{pool.name}'/></fs>")
        assert owner(tmp_path) == (FIRST, FIRST)
    finally:
        run("umount", tmp_path)
    item.rmdir()


#: Copies the namespace; `own` puts the mapping at its path into a directory of the copy's own.
COPIES = {
    "copied": "true",
    "own": """
        mount --bind "$1" /mnt && mount -t tmpfs none "${1%/*}" && mkdir "$1" && mount --bind /mnt "$1" &&
        umount /mnt
    """,
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_mapping_at_the_same_path_is_used_by_a_container_but_not_by_a_copied_namespace(
    kind: str, tree: ControlTree
) -> None:
    item = mapped_item(tree, tree.active_pool())
    at = os.readlink(item / "idmapped")
    process = subprocess.Popen(
        ("unshare", "--mount", "bash", "-c", f"{COPIES[kind].strip()} && echo begun; read go", "bash", at),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        if kind == "copied":
            assert (item / "users").read_text() == ""
            item.rmdir()
        else:
            assert (item / "users").read_text().endswith(f" {at}\n")
            with refused(errno.EBUSY):
                item.rmdir()
    finally:
        process.communicate(b"\n")


def test_a_mapped_item_holds_what_it_was_rolled_back_to(tree: ControlTree) -> None:
    item = mapped_item(tree, tree.active_pool())
    (item / "data" / "file").write_text("before")
    (item / "snapshots" / "v1").mkdir()
    in_container('echo after > "$1/file"', os.readlink(item / "idmapped"))
    assert (item / "data" / "file").read_text() == "after\n"
    request(item / "status", "rollback v1")
    assert (item / "idmapped" / "file").read_text() == "before"


def test_a_map_changes_and_goes_with_the_definition(tree: ControlTree) -> None:
    pool = tree.active_pool()
    item = mapped_item(tree, pool)
    assert owner(item / "idmapped" / ".") == (FIRST, FIRST)
    document = (item / "config.xml").read_text()
    request(item / "config.xml", document.replace(f"target='{FIRST}'", "target='500000'"))
    assert owner(item / "idmapped" / ".") == (500_000, 500_000)
    at = Path(os.readlink(item / "idmapped"))
    request(item / "config.xml", f"<fs><name>web</name><source fspool='{pool.name}'/></fs>")
    assert not os.path.lexists(item / "idmapped")
    assert not at.exists()


def test_a_mapping_outlives_a_killed_daemon_and_is_made_anew(make_daemon: MakeDaemon) -> None:
    daemon: Daemon = make_daemon()
    tree = ControlTree(daemon)
    pool = tree.active_pool()
    item = mapped_item(tree, pool)
    at = Path(os.readlink(item / "idmapped"))
    daemon.kill()
    assert owner(at) == (FIRST, FIRST)
    daemon.start()
    eventually(lambda: value(pool / "status") == "active", what="the pool is active again")
    assert os.readlink(item / "idmapped") == str(at)
    assert owner(at) == (FIRST, FIRST)
    assert mounts_below(at.parent) == [str(at)]
    daemon.kill()
    daemon.start()
    eventually(lambda: value(pool / "status") == "active", what="the pool is active again")
    item.rmdir()
    assert not at.exists()


def test_a_started_pool_has_its_mappings_where_containers_knew_them(tree: ControlTree) -> None:
    """A runtime that starts a container again has the path of before."""
    pool = tree.active_pool()
    at = Path(os.readlink(mapped_item(tree, pool) / "idmapped"))
    gone = Path(os.readlink(mapped_item(tree, pool, "gone") / "idmapped"))
    request(pool / "status", "stop")
    gone.mkdir(parents=True)  # as a boot leaves it
    (pool / "root" / ".fspool" / "items" / "gone.xml").unlink()
    request(pool / "status", "start")
    assert owner(at) == (FIRST, FIRST)
    assert mounts_below(at.parent) == [str(at)]
    assert not gone.exists()


def test_only_root_maps_ids(tree: ControlTree) -> None:
    """Who writes through the map makes files of any owner in it."""
    pool = tree.active_pool(
        "<target><permissions><mode>0777</mode><owner>1001</owner></permissions></target>"
    )
    document = f"<fs><name>hers</name><source fspool='{pool.name}'/>{IDMAP}</fs>"
    line = 'echo "$1" > "$2"'
    assert "Permission denied" in sh(line, document, tree.define, user=ALICE, check=False).stderr
    sh('mkdir "$1"', pool / "items" / "hers", user=ALICE)
    config = pool / "items" / "hers" / "config.xml"
    assert "Permission denied" in sh(line, document, config, user=ALICE, check=False).stderr
    assert "that is for root" in last_error(config.parent)
    request(tree.define, document)
    # What she repeats is no change.
    assert sh('cat "$1" | tee "$1" > /dev/null', config, user=ALICE).stderr == ""
    assert not (Path(os.readlink(config.parent / "idmapped")).stat().st_mode & 0o7000)


def test_where_ids_cannot_be_mapped_the_document_is_refused(tree: ControlTree) -> None:
    """The kernel's /proc is such a file system; a pool in one that maps nothing is seldom at hand."""
    ramfs = tree.daemon.base / "ramfs"
    ramfs.mkdir()
    run("mount", "-t", "ramfs", "none", ramfs)
    try:
        pool = tree.active_pool(f"<target><path>{ramfs}/pool</path></target>")
        with refused(errno.EOPNOTSUPP):
            mapped_item(tree, pool)
        assert "<idmap> is refused" in last_error(pool)
        assert os.listdir(pool / "items") == []
        request(pool / "status", "stop")
    finally:
        run("umount", ramfs)


# -- a pool in a container ------------------------------------------------------------------------


@pytest.fixture
def handed(tree: ControlTree) -> Path:
    """A pool that is the root's of a container."""
    return tree.active_pool(
        f"<target><permissions><mode>0755</mode><owner>{FIRST}</owner><group>{FIRST}</group></permissions></target>"
    )


def inside(pool: Path, script: str, *, check: bool = True) -> str:
    """What a container says that has the pool's part of the tree as its working directory."""
    line = f'cd "$1" && {{ {script.strip()}; }} 2>&1'
    return in_container(line, PLACE, given=pool, check=check).stdout


def test_a_container_manages_the_pool_that_it_is_given(handed: Path) -> None:
    script = """
        mkdir items/web && stat -c %u:%g items/web && chmod 700 items/web &&
        mkdir items/web/snapshots/v1 && mv items/web items/www && echo 'clone copy' > items/www/status &&
        chown 33:34 items/www &&
        rmdir items/copy && mv trash/copy items/back && rmdir items/back && rmdir trash/back && ls items
    """
    assert inside(handed, script).split() == ["0:0", "www"]
    info = os.stat(handed / "items" / "www" / "data")
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (FIRST + 33, FIRST + 34, 0o700)


@pytest.mark.parametrize(
    "attempt",
    [
        "echo stop > status",
        "echo 1 > autostart",
        "echo refresh > status",
        "cat config.xml | tee config.xml",
        "chown 0 items",
        "chmod 777 items",
        "rmdir ../$(basename $PWD)",
        "chown 65534 items/web && test $(stat -c %u items/web) != 65534",
        "mount -t tmpfs none status",
        "ls root/.fspool",
        "chown 33 items/root",
        "chmod 777 items/root",
        "echo '<fs><name>root</name><metadata/></fs>' > items/root/config.xml",
        "mkdir items/root/snapshots/v1",
        "echo measure > items/root/status",
    ],
)
def test_a_container_changes_nothing_but_its_pool_s_items(
    attempt: str, tree: ControlTree, handed: Path, tmp_path: Path
) -> None:
    (handed / "items" / "root").mkdir(mode=0o700)
    config = (handed / "config.xml").read_text()
    told = inside(handed, f"mkdir items/web && echo begun && if {attempt}; then echo done; fi", check=False)
    assert "begun\n" in told
    assert not told.endswith("done\n"), told
    assert value(handed / "status") == "active"
    assert value(handed / "autostart") == "0"
    assert (handed / "config.xml").read_text() == config
    assert owner(handed / "items") == (FIRST, FIRST)
    root = (handed / "items" / "root" / "data").stat()
    assert (root.st_uid, root.st_mode & 0o7777) == (0, 0o700)
    assert os.listdir(handed / "items" / "root" / "snapshots") == []


def test_a_container_s_root_may_take_away_what_lies_in_its_pool(handed: Path) -> None:
    """As in a directory that is his; sticky pools keep the items of others."""
    (handed / "items" / "root").mkdir(mode=0o700)
    inside(handed, "rmdir items/root")
    assert os.listdir(handed / "trash") == ["root"]


def test_a_container_does_not_get_out_of_its_part_of_the_tree(handed: Path) -> None:
    # What is above a mount is what it is mounted in.
    script = """
        test "$(stat -c %d:%i ..)" = "$(stat -c %d:%i $1/..)" &&
        test ! -e ../define && test ! -e ../../define && echo fine
    """
    assert inside(handed, script) == "fine\n"
