"""Every program that people write files with redefines a pool and an item, and hears of faults."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mount.control import ControlTree, last_error, refused
from mount.rewriting import FAULTS, Fault, Subject, new_item, new_pool
from support.needs import needs_program, needs_root
from support.shell import Shell, run, sh

pytestmark = [
    needs_root,
    needs_program("bash", "dash", "perl", "install", "dd", "awk"),
    pytest.mark.required,
]


@dataclass(frozen=True, slots=True)
class Writer:
    """A line of shell that writes the document in the file $2 into the file $1.

    `hears_truncation` is false for the shells' own echo and printf and for perl: they do not look at
    what close(2) tells, which is the only place where an unfinished document can be refused.
    """

    line: str
    shell: Shell = "bash"
    hears_truncation: bool = True


_PYTHON = 'import sys\nwith open(sys.argv[1], "w") as f: f.write(open(sys.argv[2]).read())'

WRITERS = {
    "bash echo": Writer('echo "$(<"$2")" > "$1"', hears_truncation=False),
    "bash printf": Writer('printf "%s\\n" "$(<"$2")" > "$1"', hears_truncation=False),
    "dash echo": Writer('echo "$(cat "$2")" > "$1"', "dash", hears_truncation=False),
    "dash printf": Writer('printf "%s\\n" "$(cat "$2")" > "$1"', "dash", hears_truncation=False),
    "echo line by line": Writer(
        'while IFS= read -r line; do echo "$line" || exit; done < "$2" > "$1"', hears_truncation=False
    ),
    "/bin/echo": Writer('/bin/echo "$(<"$2")" > "$1"'),
    "cat": Writer('cat "$2" > "$1"'),
    "cat without truncating": Writer('cat "$2" 1<> "$1"'),
    "tee": Writer('tee "$1" < "$2" > /dev/null'),
    "cp": Writer('cp "$2" "$1"'),
    "cp -a": Writer('cp -a "$2" "$1"'),
    "cp --remove-destination": Writer('cp --remove-destination "$2" "$1"'),
    "install": Writer('install "$2" "$1"'),
    "mv": Writer('mv "$2" "$1"', "dash"),
    "dd bs=1": Writer('dd if="$2" of="$1" bs=1 status=none'),
    "dd bs=64": Writer('dd if="$2" of="$1" bs=64 status=none'),
    "dd bs=1M": Writer('dd if="$2" of="$1" bs=1M status=none'),
    "dd notrunc": Writer('dd if="$2" of="$1" conv=notrunc,fsync status=none'),
    "awk": Writer('awk \'{ print }\' "$2" > "$1"'),
    "sed": Writer('sed "" "$2" > "$1"'),
    "perl": Writer('perl -pe "" "$2" > "$1"', hears_truncation=False),
    "python": Writer(f"'{sys.executable}' -c '{_PYTHON}' \"$1\" \"$2\""),
    "two builtins": Writer(
        '(printf "%s" "$(head -c 40 "$2")"; printf "%s\\n" "$(tail -c +41 "$2")") > "$1"',
        hears_truncation=False,
    ),
    "two programs": Writer('(head -c 40 "$2"; tail -c +41 "$2") > "$1"'),
}


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest) -> Writer:
    return WRITERS[request.param]


def write(writer: Writer, subject: Subject, document: str, directory: Path) -> int:
    """Write `document` and return the exit status."""
    source = directory / "new.xml"
    source.write_text(document)
    return sh(writer.line, subject.config, source, shell=writer.shell, check=False).returncode


def test_a_good_document_takes_effect(writer: Writer, subject: Subject, tmp_path: Path) -> None:
    assert write(writer, subject, subject.document(), tmp_path) == 0
    subject.assert_redefined()
    assert last_error(subject.directory) == ""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_document_changes_nothing_is_told_and_can_be_corrected(
    writer: Writer, subject: Subject, fault: Fault, tmp_path: Path
) -> None:
    status = write(writer, subject, subject.faulty(fault), tmp_path)
    if fault != "truncated" or writer.hears_truncation:
        assert status != 0
    subject.assert_unchanged(fault)
    assert write(writer, subject, subject.document(), tmp_path) == 0
    subject.assert_redefined()


def test_the_old_document_is_readable_until_the_new_one_is_whole(subject: Subject) -> None:
    document = subject.document().encode()
    half = len(document) // 2
    with subject.config.open("wb", buffering=0) as file:
        file.write(document[:half])
        assert subject.config.read_bytes() == subject.before
        file.write(document[half:])
        assert subject.mode() == subject.mode_wanted


def test_a_writer_that_is_killed_leaves_the_old_document(subject: Subject, tmp_path: Path) -> None:
    source = tmp_path / "half.xml"
    source.write_text(subject.faulty("truncated"))
    killed = sh('exec > "$1"; cat "$2"; kill -KILL $$', subject.config, source, check=False)
    assert killed.returncode == -9
    subject.assert_unchanged("truncated")


def test_two_writers_at_once_do_not_mix(subject: Subject) -> None:
    document = subject.document().encode()
    with subject.config.open("wb", buffering=0) as one:
        with refused(errno.EINVAL), subject.config.open("wb", buffering=0) as other:
            for byte in range(40):
                one.write(document[byte : byte + 1])
                other.write(document[byte : byte + 1])
        one.write(document[40:])
    subject.assert_redefined()


@pytest.mark.parametrize("tail", ["\n", "\r\n\r\n", " \t\n"])
def test_white_space_may_follow_a_document(subject: Subject, tail: str) -> None:
    with subject.config.open("wb", buffering=0) as file:
        file.write(subject.document().encode())
        file.write(tail.encode())
    subject.assert_redefined()
    assert last_error(subject.directory) == ""


def test_text_behind_the_end_in_the_same_write_refuses_the_whole_document(subject: Subject) -> None:
    with refused(errno.EINVAL), subject.config.open("wb", buffering=0) as file:
        file.write(subject.document().encode() + b"and more")
    assert subject.mode() == subject.mode_before
    assert "line" in last_error(subject.directory)


def test_nothing_written_defines_nothing_and_is_no_error(subject: Subject) -> None:
    for line in (': > "$1"', 'echo > "$1"', 'cat /dev/null > "$1"', 'truncate -s 0 "$1"'):
        sh(line, subject.config)
    assert subject.config.read_bytes() == subject.before
    assert last_error(subject.directory) == ""


def test_a_document_of_more_than_a_mebibyte_is_refused_however_it_comes(
    subject: Subject, tmp_path: Path
) -> None:
    big = tmp_path / "big.xml"
    big.write_text(subject.document().replace("<name>", f"<!--{'x' * 1024**2}-->\n<name>"))
    for line in ('cat "$2" > "$1"', 'cp "$2" "$1"', 'dd if="$2" of="$1" bs=4M status=none'):
        assert "File too large" in sh(line, subject.config, big, check=False).stderr
    assert subject.config.read_bytes() == subject.before


def test_a_document_of_almost_a_mebibyte_is_taken_in_pieces(subject: Subject, tmp_path: Path) -> None:
    big = tmp_path / "big.xml"
    big.write_text(subject.document().replace("<name>", f"<!--{'x' * 1_000_000}-->\n<name>"))
    for line in ('cat "$2" > "$1"', 'echo "$(<"$2")" > "$1"', 'tee "$1" < "$2" > /dev/null'):
        sh(line, subject.config, big)
    subject.assert_redefined()


def test_a_document_in_utf_16_is_a_document(subject: Subject) -> None:
    subject.config.write_bytes(subject.document().encode("utf-16"))
    subject.assert_redefined()


@pytest.mark.parametrize(
    "prolog",
    [
        '<!DOCTYPE fs [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE fspool SYSTEM "http://example.com/x.dtd">',
    ],
    ids=["entity", "external"],
)
def test_a_document_type_is_refused(subject: Subject, prolog: str) -> None:
    with refused(errno.EINVAL):
        subject.config.write_text(prolog + subject.document())
    assert subject.config.read_bytes() == subject.before


def test_a_document_of_the_other_kind_is_refused(tree: ControlTree, some_pool: Path) -> None:
    pool, item = new_pool(tree, some_pool), new_item(tree, some_pool)
    with refused(errno.EINVAL):
        pool.config.write_text(item.document())
    with refused(errno.EINVAL):
        item.config.write_text(pool.document())
    assert "<fspool>" in last_error(pool.directory)
    assert "<fs>" in last_error(item.directory)


def test_a_document_with_another_name_is_refused(subject: Subject) -> None:
    name = subject.directory.name
    with refused(errno.EINVAL, errno.EPERM):
        subject.config.write_text(subject.document().replace(f"<name>{name}<", "<name>other<"))
    assert "other" in last_error(subject.directory)
    assert subject.config.read_bytes() == subject.before


def test_an_unsaid_value_of_an_item_stays(tree: ControlTree, some_pool: Path) -> None:
    item = new_item(tree, some_pool)
    os.chown(item.directory, 1234, 2345)
    item.config.write_text(item.document())
    data = (item.directory / "data").stat()
    assert (data.st_uid, data.st_gid) == (1234, 2345)


def test_writing_at_a_gap_is_refused(subject: Subject) -> None:
    descriptor = os.open(subject.config, os.O_WRONLY)
    try:
        os.pwrite(descriptor, b"<fs>\n", 0)
        with refused(errno.EINVAL):
            os.pwrite(descriptor, b"</fs>\n", 100)
    finally:
        with refused(errno.EINVAL):
            os.close(descriptor)
    assert subject.config.read_bytes() == subject.before


def test_appending_a_document_defines_it(subject: Subject, tmp_path: Path) -> None:
    source = tmp_path / "new.xml"
    source.write_text(subject.document())
    sh('cat "$2" >> "$1"', subject.config, source)
    subject.assert_redefined()


def test_every_writer_of_define_works_too(tree: ControlTree, writer: Writer, tmp_path: Path) -> None:
    if not {"cp", "install", "mv"}.isdisjoint(writer.line.split()[:1]):
        return  # they replace the file, which only config.xml lets them
    name, source = tree.new_name(), tmp_path / "new.xml"
    source.write_text(f"<fspool type='dir'>\n<name>{name}</name>\n<target>\n</target>\n</fspool>\n")
    sh(writer.line, tree.define, source, shell=writer.shell)
    assert (tree.pools / name / "status").read_text() == "inactive\n"


def test_a_copy_goes_into_define(tree: ControlTree, tmp_path: Path) -> None:
    name, source = tree.new_name(), tmp_path / "new.xml"
    source.write_text(f"<fspool type='dir'><name>{name}</name></fspool>")
    run("cp", source, tree.define)
    assert (tree.pools / name / "status").read_text() == "inactive\n"
