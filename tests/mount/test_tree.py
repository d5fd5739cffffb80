"""The control tree as a directory: what each file prints and takes, what can be made where, what cannot."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from pathlib import Path

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from support.needs import needs_program, needs_root
from support.shell import as_user, run, sh
from support.wait import eventually

pytestmark = [needs_root, pytest.mark.required]

ROOT = {"define", "events", "features", "last_error", "metrics", "version", "pools"}
POOL = {
    *("config.xml", "status", "job", "info", "uuid", "capacity", "allocation", "available"),
    *("autostart", "features", "listing", "last_error", "root", "items", "trash"),
}
ITEM = {
    *("config.xml", "status", "job", "info", "uuid", "capacity", "allocation", "available"),
    *("users", "last_error", "data", "snapshots"),
}
WRITABLE = {"define", "config.xml", "status", "job", "capacity", "autostart"}
LINKS = {"root", "data"}
DIRECTORIES = {"pools", "items", "trash", "snapshots"}


def everything(top: Path) -> list[Path]:
    """Every path of the tree below `top`, links not followed."""
    return [Path(directory, name) for directory, names, files in os.walk(top) for name in [*names, *files]]


# What is where


def test_each_directory_has_its_files(tree: ControlTree, some_pool: Path, item: Path) -> None:
    assert set(os.listdir(tree.mount)) == ROOT
    assert set(os.listdir(some_pool)) == POOL
    assert set(os.listdir(item)) == ITEM
    assert os.listdir(item / "snapshots") == []


def test_each_file_has_the_mode_that_says_whether_it_can_be_written(
    tree: ControlTree, some_pool: Path, item: Path
) -> None:
    for directory in (tree.mount, some_pool, item):
        for name in os.listdir(directory):
            mode = (directory / name).lstat().st_mode
            assert stat.S_ISLNK(mode) == (name in LINKS), name
            assert stat.S_ISDIR(mode) == (name in DIRECTORIES), name
            if stat.S_ISREG(mode):
                assert bool(mode & stat.S_IWUSR) == (name in WRITABLE), name
                assert not mode & 0o111, name


def test_links_lead_to_the_real_directories(tree: ControlTree, some_pool: Path, item: Path) -> None:
    real = tree.daemon.storage / "pools" / some_pool.name
    assert os.readlink(some_pool / "root") == str(real)
    assert os.readlink(item / "data") == str(real / item.name)
    (item / "data" / "file").write_text("native")
    assert (real / item.name / "file").read_text() == "native"


def test_every_value_ends_with_a_newline_and_has_no_padding(some_pool: Path, item: Path) -> None:
    for file in [
        *(some_pool / name for name in ("status", "uuid", "autostart", "capacity", "allocation")),
        *(item / name for name in ("status", "uuid", "capacity", "allocation", "available")),
    ]:
        text = file.read_text()
        assert re.fullmatch(r"\S+\n", text), f"{file.name}: {text!r}"


def test_the_numbers_of_a_pool_are_those_of_its_file_system(some_pool: Path) -> None:
    found = os.statvfs(some_pool / "root")
    assert int(value(some_pool / "capacity")) == found.f_blocks * found.f_frsize
    used = int(value(some_pool / "allocation")) + int(value(some_pool / "available"))
    assert 0 < used <= int(value(some_pool / "capacity"))


def test_features_tell_of_everything_yes_or_the_reason(tree: ControlTree, some_pool: Path) -> None:
    for file in (tree.mount / "features", some_pool / "features"):
        for line in file.read_text().splitlines():
            assert re.fullmatch(r"[a-z0-9. -]+: (yes( \(.+\))?|no \(.+\)|generic)", line), line
    features = (some_pool / "features").read_text()
    assert "clone: yes" in features
    assert "quota: no (" in features


def test_info_is_for_people(some_pool: Path, item: Path) -> None:
    for file, words in {
        some_pool / "info": ("Name:", "UUID:", "State:", "Autostart:", "Capacity:", "Available:"),
        item / "info": ("Name:", "UUID:", "State:", "Owner:", "Mode:"),
    }.items():
        text = file.read_text()
        assert all(word in text for word in words)
        assert all(re.fullmatch(r"[A-Za-z ]+: +\S.*", line) for line in text.splitlines())


def test_what_a_file_prints_it_also_takes(pool: Path, tree: ControlTree) -> None:
    item = tree.new_item(pool)
    files = [pool / "config.xml", pool / "autostart", item / "config.xml", item / "capacity"]
    before = [file.read_text() for file in files]
    for file, text in zip(files, before, strict=True):
        file.write_text(text)
        sh('cat "$1" | tee "$1" > /dev/null; text=$(cat "$1"); echo "$text" > "$1"', file)
    assert [file.read_text() for file in files] == before
    assert (last_error(pool), last_error(item)) == ("", "")


def test_the_document_of_an_item_defines_it_elsewhere(pool: Path, tree: ControlTree) -> None:
    item = tree.new_item(pool)
    printed = (item / "config.xml").read_text()
    item.rmdir()
    (pool / "trash" / "web").rmdir()
    request(tree.define, printed)
    assert (pool / "items" / "web" / "config.xml").read_text() == printed


# What cannot be done


@pytest.mark.parametrize("where", ["", "pools", "POOL", "POOL/items", "POOL/trash", "ITEM", "ITEM/snapshots"])
def test_nothing_of_another_kind_can_be_made(
    tree: ControlTree, some_pool: Path, item: Path, where: str
) -> None:
    places = {"POOL": some_pool, "ITEM": item}
    head, _, rest = where.partition("/")
    directory = places.get(head, tree.mount / head) / rest
    with refused(errno.EPERM):
        os.close(os.open(directory / "new.txt", os.O_CREAT | os.O_WRONLY))
    assert "//" not in last_error(tree.mount)
    with refused(errno.EPERM):
        (directory / "link").symlink_to("/etc")
    with refused(errno.EPERM):
        os.link(tree.mount / "version", directory / "hard")
    with refused(errno.EPERM):
        os.mkfifo(directory / "fifo")
    with refused(errno.EPERM):
        os.mknod(directory / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with refused(errno.EPERM), socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{directory}/s")


@pytest.mark.parametrize("where", ["new", "POOL/new", "POOL/trash/new", "ITEM/new"])
def test_directories_can_be_made_in_their_places_only(
    tree: ControlTree, some_pool: Path, item: Path, where: str
) -> None:
    path = Path(where.replace("POOL", str(some_pool)).replace("ITEM", str(item)))
    with refused(errno.EPERM):
        (tree.mount / path).mkdir()


def test_no_file_or_directory_of_the_tree_can_be_removed_or_moved(
    tree: ControlTree, some_pool: Path, item: Path
) -> None:
    for directory in (tree.mount, some_pool, item):
        for name in os.listdir(directory):
            path = directory / name
            with refused(errno.EPERM):
                path.rename(directory / "elsewhere")
            if name == "config.xml":
                continue
            with refused(errno.EPERM):
                path.rmdir() if name in DIRECTORIES else path.unlink()


def test_no_control_file_changes_its_mode_or_owner(some_pool: Path, item: Path) -> None:
    for directory in (some_pool, item):
        for name in ("status", "info", "uuid"):
            with refused(errno.EPERM):
                (directory / name).chmod(0o777)
            with refused(errno.EPERM):
                os.chown(directory / name, 1000, 1000)


@pytest.mark.parametrize("name", ["uuid", "info", "allocation", "last_error"])
def test_a_file_that_only_tells_cannot_be_opened_for_writing(item: Path, name: str) -> None:
    with refused(errno.EPERM, errno.EACCES):
        request(item / name, "x")


def test_nothing_can_be_written_by_a_stranger(some_pool: Path, item: Path) -> None:
    stranger = as_user(4711)
    for path in (some_pool / "status", some_pool / "config.xml", item / "status", item / "capacity"):
        result = sh('echo x > "$1"', path, user=stranger, check=False)
        assert "Permission denied" in result.stderr
    for line in ('mkdir "$1/items/x"', 'rmdir "$1/items/$2"', 'mkdir "$1/../x"', 'rmdir "$1"'):
        result = sh(line, some_pool, item.name, user=stranger, check=False)
        assert "Permission denied" in result.stderr


def test_a_removal_of_a_whole_pool_removes_nothing(pool: Path, tree: ControlTree) -> None:
    item = tree.new_item(pool)
    (item / "data" / "file").write_text("kept")
    tree.new_item(pool, "old").rmdir()
    real = os.readlink(item / "data")
    result = run("rm", "-r", "-f", pool, check=False)
    assert result.returncode != 0
    assert "Function not implemented" not in result.stderr
    eventually((item / "config.xml").exists, what="the documents are back")
    assert value(pool / "status") == "active"
    assert os.listdir(pool / "items") == ["web"]
    assert os.listdir(pool / "trash") == ["old"]
    assert Path(real, "file").read_text() == "kept"


BAD_NAMES = [
    *(b".hidden", b"-rf", b"new\nline", b"tab\t", b"caf\xe9", b"\xff", b"a\x7f", b"a" * 201),
    *("ä".encode() * 101, "\u2028".encode(), b"a" * 255),
]


@pytest.mark.parametrize("where", ["pools", "items"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_directory_with_a_bad_name_is_refused(
    tree: ControlTree, some_pool: Path, where: str, name: bytes
) -> None:
    parent = tree.pools if where == "pools" else some_pool / "items"
    before = os.listdir(parent)
    with refused(errno.EINVAL):
        os.mkdir(os.fsencode(parent) + b"/" + name)
    assert os.listdir(parent) == before
    sentence = last_error(tree.mount if where == "pools" else some_pool)
    assert "name" in sentence
    assert sentence.isprintable()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_item_gets_no_bad_name_by_a_rename_or_a_clone(some_pool: Path, item: Path, name: bytes) -> None:
    with refused(errno.EINVAL):
        os.rename(item, os.fsencode(some_pool) + b"/items/" + name)
    if b"\n" not in name and b"\t" not in name:
        with refused(errno.EINVAL):
            (item / "status").write_bytes(b"clone " + name)
    assert item.exists()


@pytest.mark.parametrize("name", [b"new\nline", b"tab\t", b"caf\xe9"])
def test_a_sentence_about_a_bad_name_is_one_line_of_text(some_pool: Path, name: bytes) -> None:
    with refused(errno.EPERM):
        os.symlink("anywhere", os.fsencode(some_pool) + b"/items/" + name)
    assert "symlink" in last_error(some_pool)
    assert last_error(some_pool).isprintable()


@pytest.mark.parametrize("where", ["pools", "items"])
@pytest.mark.parametrize("length", [256, 1000, 3900])
def test_a_name_longer_than_any_file_system_has_is_refused(
    tree: ControlTree, some_pool: Path, where: str, length: int
) -> None:
    parent = tree.pools if where == "pools" else some_pool / "items"
    with refused(errno.EINVAL, errno.ENAMETOOLONG):
        (parent / ("n" * length)).mkdir()


# Whole-tree programs


@needs_program("tar", "find", "grep", "du")
@pytest.mark.parametrize(
    "line",
    [
        'cp -r "$1" "$2/copy"',
        'cp -a "$1" "$2/copy"',
        'tar -C "$1" -cf "$2/all.tar" .',
        'find "$1" -ls',
        'find "$1" -type f -exec cat {} +',
        'grep -r "nothing of this" "$1"; [ $? -eq 1 ]',
        'du -a "$1"',
        'ls -lRa "$1"',
        'stat $(find "$1")',
        'stat -f "$1"; df "$1"',
        'find -L "$1"',
    ],
    ids=lambda line: " ".join(line.split()[:2]),
)
def test_programs_that_read_the_whole_tree_end_without_an_error(
    tree: ControlTree, pool: Path, line: str, tmp_path: Path
) -> None:
    for number in range(3):
        tree.new_item(pool, f"item{number}")
    tree.new_item(pool, "deleted").rmdir()
    result = sh(line, tree.mount, tmp_path)
    assert result.stderr == "" or "file changed as we read it" in result.stderr


def test_a_copy_of_the_tree_holds_what_its_files_show(pool: Path, tmp_path: Path) -> None:
    run("cp", "-r", pool, tmp_path / "copy")
    for name in ("config.xml", "status", "uuid", "autostart", "features"):
        assert (tmp_path / "copy" / name).read_text() == (pool / name).read_text()
    assert set(os.listdir(tmp_path / "copy")) == POOL


def test_looking_at_anything_never_fails_and_sizes_that_matter_are_true(
    tree: ControlTree, pool: Path
) -> None:
    tree.new_item(pool).rmdir()
    tree.new_item(pool)
    for path in everything(tree.mount):
        info = path.lstat()
        if path.name in ("status", "config.xml", "uuid", "autostart", "version"):
            assert info.st_size == len(path.read_bytes()), path


def test_two_listings_show_the_same_and_every_inode_once(tree: ControlTree, pool: Path) -> None:
    for number in range(300):
        (pool / "items" / f"i{number}").mkdir()
    names = os.listdir(pool / "items")
    assert len(names) == len(set(names)) == 300
    assert {entry.name for entry in os.scandir(pool / "items") if entry.is_dir()} == set(names)
    inodes = [path.lstat().st_ino for path in everything(tree.mount)]
    assert len(inodes) == len(set(inodes))


def test_a_reader_sees_the_state_of_when_it_opened(pool: Path) -> None:
    with (pool / "status").open() as file:
        assert file.read() == "active\n"
        request(pool / "status", "stop")
        assert file.read() == ""
        file.seek(0)
        assert file.read() == "inactive\n"
