"""Editors change a pool's and an item's document as any other file, and hear of faults."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mount.control import ControlTree, refused
from mount.rewriting import FAULTS, Fault, Subject, new_item
from support.needs import needs_program, needs_root
from support.shell import run, sh
from support.wait import eventually

pytestmark = [needs_root, needs_program("vim", "sed", "perl"), pytest.mark.required]

# Tests mount below /tmp, where vim makes no backup unless it is told to.
_VIM = (
    "vim -es -i NONE -u NONE --cmd 'set backupskip= writebackup {settings}' "
    '-c %d -c "0read $2" -c \'{write}\' "$1"'
)

#: How an editor replaces all that is in the file $1 by what is in the file $2.
EDITORS = {
    **{
        f"vim {copy} {swap}": _VIM.format(settings=f"backupcopy={copy} {swap}", write="wq")
        for copy in ("yes", "no", "auto")
        for swap in ("swapfile", "noswapfile")
    },
    "vim x!": _VIM.format(settings="nocompatible", write="x!"),
    "sed -i": 'sed -i -e "\\$r $2" -e d "$1"',
    "perl -pi": 'perl -0777 -pi -e \'BEGIN { local $/; open F, pop; $new = <F> } $_ = $new\' "$1" "$2"',
    "a copy, renamed": 'cp "$2" "$1.new" && mv "$1.new" "$1" || { rm "$1.new"; false; }',
}


@pytest.fixture(params=EDITORS)
def editor(request: pytest.FixtureRequest) -> str:
    return EDITORS[request.param]


def edit(editor: str, subject: Subject, document: str, directory: Path) -> int:
    """Replace the document in the editor and return its exit status."""
    source = directory / "new.xml"
    source.write_text(document)
    return sh(editor, subject.config, source, check=False, env={"HOME": str(directory)}).returncode


def test_a_replaced_document_takes_effect(editor: str, subject: Subject, tmp_path: Path) -> None:
    assert edit(editor, subject, subject.document(), tmp_path) == 0
    subject.assert_redefined()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_document_changes_nothing_is_told_and_can_be_corrected(
    editor: str, subject: Subject, fault: Fault, tmp_path: Path
) -> None:
    assert edit(editor, subject, subject.faulty(fault), tmp_path) != 0
    if "backupcopy=yes" in editor:
        # On every file system vim leaves the copy of a file that it could not write.
        backup = subject.directory / "config.xml~"
        assert backup.read_bytes() == subject.before
        backup.unlink()
    subject.assert_unchanged(fault)
    assert edit(editor, subject, subject.document(), tmp_path) == 0
    subject.assert_redefined()


@pytest.mark.parametrize(
    "line",
    [
        "vim -es -i NONE -u NONE --cmd 'set backupskip= writebackup' -c '%s/0755/2711/' -c wq \"$1\"",
        'sed -i s/0755/2711/ "$1"',
        "perl -pi -e 's/0755/2711/' \"$1\"",
    ],
    ids=["vim", "sed", "perl"],
)
def test_one_value_can_be_changed_in_what_the_file_shows(
    tree: ControlTree, some_pool: Path, line: str
) -> None:
    item = new_item(tree, some_pool)
    item.mode_wanted = 0o2711
    os.chmod(item.directory, 0o755)
    sh(line, item.config)
    item.assert_redefined()


def test_editors_take_turns(subject: Subject, tmp_path: Path) -> None:
    for editor in EDITORS.values():
        subject.mode_wanted ^= 0o1
        assert edit(editor, subject, subject.document(), tmp_path) == 0
        subject.assert_redefined()


def test_a_file_of_vim_is_a_file_while_vim_has_it(subject: Subject) -> None:
    swap = subject.directory / ".config.xml.swp"
    swap.write_bytes(b"swapped")
    with swap.open("r+b") as file:
        file.seek(4096)
        file.write(b"page")
    assert swap.stat().st_size == 4100
    assert swap.read_bytes() == b"swapped".ljust(4096, b"\0") + b"page"
    assert swap.name in os.listdir(subject.directory)
    swap.chmod(0o600)
    swap.rename(subject.directory / ".config.xml.swo")
    (subject.directory / ".config.xml.swo").unlink()
    assert sorted(os.listdir(subject.directory)) == subject.names


@pytest.mark.parametrize("name", ["notes.txt", "status", "config.xml.d/x", "core", "info~"])
def test_only_names_of_editors_are_taken(subject: Subject, name: str) -> None:
    with refused(errno.EPERM, errno.ENOENT, errno.EEXIST):
        os.close(os.open(subject.directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    assert sorted(os.listdir(subject.directory)) == subject.names


def test_temporary_files_are_few_and_small(subject: Subject) -> None:
    made = []
    with refused(errno.ENOSPC):
        for number in range(1000, 2000):
            path = subject.directory / str(number)
            path.touch(exist_ok=False)
            made.append(path)
    with refused(errno.EFBIG):
        made[0].write_bytes(bytes(3 << 20))
    with refused(errno.EFBIG):
        os.truncate(made[0], 3 << 20)
    for path in made:
        path.unlink()
    assert sorted(os.listdir(subject.directory)) == subject.names


def test_temporary_files_stay_in_their_directory(tree: ControlTree, some_pool: Path) -> None:
    one, other = new_item(tree, some_pool), new_item(tree, some_pool)
    swap = one.directory / ".config.xml.swp"
    swap.touch()
    for target in (other.directory / swap.name, other.config, some_pool / swap.name):
        with refused(errno.EPERM):
            swap.rename(target)
    swap.unlink()


def test_no_temporary_file_takes_the_place_of_a_control_file(subject: Subject) -> None:
    swap = subject.directory / ".config.xml.swp"
    swap.write_text("x")
    for name in ("status", "info", "uuid", "last_error"):
        with refused(errno.EPERM):
            swap.rename(subject.directory / name)
    swap.unlink()


def test_an_empty_file_renamed_over_the_document_defines_nothing(subject: Subject) -> None:
    swap = subject.directory / ".config.xml.new"
    swap.touch()
    with refused(errno.EINVAL):
        swap.rename(subject.config)
    swap.unlink()
    assert subject.config.read_bytes() == subject.before


def test_a_removed_document_comes_back_by_itself(subject: Subject) -> None:
    subject.config.unlink()
    eventually(subject.config.exists, what="config.xml is back")
    assert subject.config.read_bytes() == subject.before
    assert sorted(os.listdir(subject.directory)) == subject.names


def test_temporary_files_go_with_their_item(tree: ControlTree, some_pool: Path) -> None:
    item = new_item(tree, some_pool)
    (item.directory / ".config.xml.swp").touch()
    item.directory.rmdir()
    tree.new_item(some_pool, item.directory.name)
    assert sorted(os.listdir(item.directory)) == item.names


def test_the_directories_of_the_tree_take_no_temporary_files(tree: ControlTree, some_pool: Path) -> None:
    for directory in (tree.mount, tree.pools, some_pool / "items", some_pool / "trash"):
        for name in ("4913", ".config.xml.swp", "sedabcdef"):
            result = run("touch", directory / name, check=False)
            assert "Operation not permitted" in result.stderr
