"""An item as large and as varied as a system's /usr: snapshots, rollback, clone and undelete keep all of it.

What they hold is compared by rsync, byte by byte and attribute by attribute. `FSPOOLFS_IMAGE_FILES`
says how many files, `FSPOOLFS_IMAGE_DIR` where, for more than fits into a test's small images.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from mount.control import ControlTree, value
from mount.control import request as request_verb
from support.daemon import MakeDaemon
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import run, sh
from support.volumes import Volumes
from support.wait import eventually

pytestmark = [
    needs_root,
    needs_fuse,
    needs_program("rsync", "mkfs.btrfs", "mkfs.ext4"),
    pytest.mark.required,
    pytest.mark.timeout(3600),
]

FILES = int(os.environ.get("FSPOOLFS_IMAGE_FILES", "2000"))
PLACE = os.environ.get("FSPOOLFS_IMAGE_DIR")
SOURCE = Path("/usr")
#: Seconds that one operation on all of it may take.
PATIENCE = 1800.0
#: Bytes of a file that is not taken in, so that so many files fit.
_TOO_LARGE = 1 << 20


def _members() -> Iterator[str]:
    for above, directories, files in os.walk(SOURCE):
        directories.sort()
        for name in sorted(files):
            path = os.path.join(above, name)
            if os.path.islink(path) or os.path.getsize(path) < _TOO_LARGE:
                yield os.path.relpath(path, SOURCE)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of `FILES` files with all that rsync can compare."""
    place = Path(PLACE) if PLACE else tmp_path_factory.getbasetemp()
    made = place / "original"
    made.mkdir(mode=0o755)
    members = "\0".join(islice(_members(), FILES))
    run("rsync", "-aHAX", "--from0", "--files-from=-", f"{SOURCE}/", made, input=members, timeout=PATIENCE)
    files = [path for path in sorted(made.rglob("*")) if path.is_file() and not path.is_symlink()]
    for number, path in enumerate(files[::20]):
        os.link(path, path.with_name(f"{path.name}.linked"))
        os.setxattr(path, "user.note", str(number).encode())
    run("setfacl", "-m", "u:1000:rx", *files[::200])
    sh('cd "$1" && truncate -s 3M sparse && printf x >> sparse && mkfifo fifo && mknod node c 1 3', made)
    sh('cd "$1" && chmod 4711 sparse && chown 1000:1001 fifo && ln -s /nowhere dangling', made)
    made.chmod(0o755)
    return made


def change(tree: Path) -> None:
    """Another one in a hundred files; the same for the same tree."""
    files = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    chance = random.Random(7)
    for path in chance.sample(files, max(4, len(files) // 100)):
        match chance.randrange(4):
            case 0:
                path.unlink()
            case 1:
                path.write_bytes(b"changed")
            case 2:
                path.chmod(0o600)
            case _:
                (path.parent / f"{path.name}.new").write_text("new")


def differences(one: Path, other: Path) -> str:
    """What rsync would do to make them the same, times of directories aside for what was changed by hand."""
    done = run(
        "rsync", "--dry-run", "-aHAXS", "--devices", "--specials", "--checksum", "--delete",
        "--itemize-changes", f"{one}/", f"{other}/", timeout=PATIENCE,
    )  # fmt: skip
    return done.stdout


def copy(source: Path, target: Path) -> None:
    run("rsync", "-aHAXS", f"{source}/", f"{target}/", timeout=PATIENCE)


def ask(item: Path, verb: str) -> None:
    """Write a verb that may go on in the background, and wait for its end."""
    try:
        request_verb(item / "status", verb)
    except OSError as error:
        if error.errno != errno.EINPROGRESS:
            raise
    items = item.parent

    def ended() -> bool:
        return all(value(one / "status") == "ready" for one in items.iterdir())

    eventually(ended, what=f"{verb} has ended", timeout=PATIENCE)


def take(item: Path, name: str) -> Path:
    """A snapshot, when it is made."""
    snapshot = item / "snapshots" / name
    snapshot.mkdir()

    def made() -> bool:
        return "State:          ready" in (snapshot / "info").read_text()

    eventually(made, what=f"snapshot {name} is made", timeout=PATIENCE)
    return snapshot / "data"


@pytest.fixture(params=["ext4", "btrfs-simple"])
def item(request: pytest.FixtureRequest, volumes: Volumes, make_daemon: MakeDaemon) -> Iterator[Path]:
    """An item of a pool on an image, or beneath `FSPOOLFS_IMAGE_DIR`/ext4 and so on."""
    place = Path(PLACE) / request.param if PLACE else volumes.directory(request.param)
    tree = ControlTree(make_daemon())
    pool = tree.active_pool(f"<target><path>{place}/pool</path></target><trash retention='1h'/>")
    yield tree.new_item(pool)
    request_verb(pool / "status", "stop")


def test_an_image_survives_snapshot_rollback_clone_and_undelete(
    item: Path, original: Path, tmp_path: Path
) -> None:
    changed = (Path(PLACE) if PLACE else tmp_path) / f"changed-{item.parents[1].name}"
    changed.mkdir()
    copy(original, changed)
    change(changed)
    data = item / "data" / "."

    copy(original, data)
    assert differences(original, data) == ""
    first = take(item, "first")
    copy_changes(changed, data)
    assert differences(changed, data) == ""
    second = take(item, "second")
    assert differences(original, first) == ""
    assert differences(changed, second) == ""

    ask(item, "rollback first")
    assert differences(original, data) == ""
    (kept,) = set(os.listdir(item / "snapshots")) - {"first", "second"}
    assert differences(changed, item / "snapshots" / kept / "data") == ""

    ask(item, "clone copy second")
    assert differences(changed, item.parent / "copy" / "data" / ".") == ""

    item.rmdir()
    (item.parents[1] / "trash" / item.name).rename(item)
    assert differences(original, item / "data" / ".") == ""
    assert differences(original, item / "snapshots" / "first" / "data") == ""
    assert differences(changed, item / "snapshots" / "second" / "data") == ""
    assert differences(original, original) == ""
    assert differences(original, changed) != "", "rsync sees what was changed"


def copy_changes(source: Path, target: Path) -> None:
    run("rsync", "-aHAXS", "--checksum", "--delete", f"{source}/", f"{target}/", timeout=PATIENCE)
