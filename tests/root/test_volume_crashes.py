"""Volumes whose daemon dies at any step of building, starting, growing, stopping and deleting.

The process is forked and ends, as by a kill, before or after each of the calls that change storage.
What it leaves must not be taken for what it is not: the same verb, done again, comes to its end.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from conformance.cases import SourceCase, on_device, on_image
from fspoolfs.backends.formats import Format
from fspoolfs.backends.source import BuildMode, Shrinkable
from fspoolfs.backends.volumes import images
from fspoolfs.errors import FspoolError, NotFoundError
from fspoolfs.progress import Progress
from fspoolfs.system import atomic, btrfs_setup, command, loop, mounting, mounts, probe, syscalls
from fspoolfs.system.paths import HostRoot
from support.machine import is_mounted, loop_devices
from support.needs import needs_program, needs_root

FORMATS = ("ext4", "xfs", "btrfs")
pytestmark = [
    needs_root,
    needs_program("blkid", "wipefs", *(f"mkfs.{name}" for name in FORMATS)),
    pytest.mark.required,
]

#: The calls before and after which the process dies.
CHANGES: tuple[tuple[object, str], ...] = (
    (atomic, "write_file"),
    (atomic, "mark"),
    (atomic, "remove_file"),
    (images, "_rename"),
    (images.Transfer, "copy"),
    (os, "ftruncate"),
    (os, "rmdir"),
    (Path, "mkdir"),
    (Path, "rmdir"),
    (loop, "attach"),
    (loop, "detach"),
    (loop, "update_size"),
    (probe, "erase"),
    (Format, "run_make"),
    (btrfs_setup, "enable_quotas"),
    (btrfs_setup, "fill_device"),
    (btrfs_setup, "shrink"),
    (mounting, "mount_detached"),
    (mounting, "move"),
    (mounts, "unmount"),
    (command, "run"),
    (syscalls, "syncfs"),
)
_DIED, _DONE, _FAILED = 9, 0, 1
SMALLER, LARGER = 256 << 20, 512 << 20


def dies_at(number: int, act: Callable[[], None]) -> bool:
    """Whether a process that does `act` dies at moment `number`; false when it came to its end before."""
    pid = os.fork()
    if pid == 0:
        status = _FAILED
        try:
            _arm(number)
            act()
            status = _DONE
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (_DIED, _DONE), "it failed without having died"
    return status == _DIED


def _arm(number: int) -> None:
    moments = iter(range(1, 1 << 30))

    def wrapped(call: Callable[..., object]) -> Callable[..., object]:
        def either(*arguments: object, **named: object) -> object:
            if next(moments) == number:
                os._exit(_DIED)
            result = call(*arguments, **named)
            if next(moments) == number:
                os._exit(_DIED)
            return result

        return either

    for owner, name in CHANGES:
        setattr(owner, name, wrapped(getattr(owner, name)))


def build(case: SourceCase, mode: BuildMode = BuildMode.NO_OVERWRITE) -> None:
    case.source.build(case.definition, mode, Progress())


def start(case: SourceCase) -> HostRoot:
    root = case.source.attach(case.definition, Progress())
    assert isinstance(root, HostRoot)
    return root


def start_and_leave(case: SourceCase) -> None:
    start(case).close()


def stop(case: SourceCase) -> None:
    case.source.detach(case.definition, force=False)


def delete(case: SourceCase) -> None:
    case.source.delete(case.definition)


def holds(case: SourceCase) -> list[str]:
    with closing(start(case)) as root:
        return root.names("")


def put_file(case: SourceCase) -> None:
    with closing(start(case)) as root:
        root.write("file", b"data", replace=False, durable=True)
    stop(case)


def nothing_is_left(directory: Path) -> None:
    """No mount, no device, no image, half-made or whole, and no marker."""
    assert [loop for loop in loop_devices() if loop.file.startswith(f"{directory}/volumes/")] == []
    assert not is_mounted(directory / "pools" / "tank")
    left = [path for path in (directory / "volumes").rglob("*") if not path.is_dir()]
    assert left == []


@pytest.fixture(params=FORMATS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SourceCase]:
    made = on_image(tmp_path, request.param)
    try:
        yield made
    finally:
        made.close()


def test_a_build_that_dies_can_be_done_again_and_never_looks_done(case: SourceCase, tmp_path: Path) -> None:
    number = 1
    while dies_at(number, lambda: build(case)):
        half = False
        try:
            start(case).close()
            stop(case)
        except NotFoundError:
            half = True
        build(case)
        assert holds(case) == [], f"after a death at {number}, half done: {half}"
        stop(case)
        delete(case)
        nothing_is_left(tmp_path)
        number += 1
    assert number > 10


def test_a_build_that_dies_can_be_deleted(case: SourceCase, tmp_path: Path) -> None:
    number = 1
    while dies_at(number, lambda: build(case)):
        delete(case)
        nothing_is_left(tmp_path)
        number += 1


def test_overwriting_that_dies_leaves_the_old_content_or_can_be_built(case: SourceCase) -> None:
    build(case)
    put_file(case)
    number = 1
    while dies_at(number, lambda: build(case, BuildMode.OVERWRITE)):
        with suppress(FspoolError):
            assert holds(case) in ([], ["file"])
        stop(case)
        build(case)
        assert holds(case) in ([], ["file"])
        stop(case)
        if holds(case) == []:
            put_file(case)
        stop(case)
        number += 1
    assert number > 5


def test_a_start_that_dies_is_found_by_the_next_one(case: SourceCase, tmp_path: Path) -> None:
    build(case)
    put_file(case)
    number = 1
    while dies_at(number, lambda: start_and_leave(case)):
        assert holds(case) == ["file"]
        assert len([loop for loop in loop_devices() if loop.file.startswith(f"{tmp_path}/")]) == 1
        stop(case)
        number += 1
    stop(case)
    assert number > 2


def test_a_start_that_dies_while_it_grows_grows_with_the_next_one(case: SourceCase) -> None:
    number, died = 1, True
    while died:
        build(case)
        put_file(case)
        larger = replace(case, definition=replace(case.definition, capacity=LARGER))
        died = dies_at(number, partial(start_and_leave, larger))
        with closing(start(larger)) as root:
            assert root.names("") == ["file"]
            assert root.space().capacity > LARGER * 0.7
            root.remove_file("file")
        stop(larger)
        delete(larger)
        number += 3


def test_shrinking_that_dies_is_done_or_undone(tmp_path: Path) -> None:
    for format in ("ext4", "btrfs"):
        case = on_image(tmp_path / format, format)
        try:
            _die_while_shrinking(case, tmp_path / format, online=format == "btrfs")
        finally:
            case.close()


def _die_while_shrinking(case: SourceCase, directory: Path, *, online: bool) -> None:
    source, size = case.source, case.definition.capacity
    assert isinstance(source, Shrinkable)
    assert size is not None

    def shrink() -> None:
        if online:
            with closing(start(case)) as root:
                source.shrink(case.definition, root, SMALLER, Progress())
        else:
            source.shrink(case.definition, None, SMALLER, Progress())

    build(case)
    put_file(case)
    number = 1
    while dies_at(number, shrink):
        shrunk = replace(case, definition=replace(case.definition, capacity=SMALLER))
        for told in (shrunk, case):  # the definition may have followed, or not
            assert holds(told) == ["file"]
            stop(told)
        assert source.size(case.definition) == size
        left = [path.name for path in (directory / "volumes").rglob("*") if not path.is_dir()]
        assert sorted(left) == ["vol1.img", "vol1.img.made"]
        number += 1
    stop(case)
    assert number > 5


def test_a_stop_that_dies_is_finished_by_the_next_one(case: SourceCase, tmp_path: Path) -> None:
    build(case)
    number, died = 1, True
    while died:
        start(case).close()
        died = dies_at(number, lambda: stop(case))
        stop(case)
        assert [loop for loop in loop_devices() if loop.file.startswith(f"{tmp_path}/")] == []
        number += 1


def test_a_deletion_that_dies_is_finished_by_the_next_one(case: SourceCase, tmp_path: Path) -> None:
    number, died = 1, True
    while died:
        build(case)
        died = dies_at(number, lambda: delete(case))
        delete(case)
        nothing_is_left(tmp_path)
        number += 1
    assert number > 5


def test_a_build_on_a_device_that_dies_can_be_done_again(tmp_path: Path) -> None:
    case = on_device(tmp_path)
    try:
        number = 1
        while dies_at(number, lambda: build(case)):
            build(case)
            assert holds(case) == []
            stop(case)
            delete(case)
            number += 1
    finally:
        case.close()


def test_formatting_that_was_cancelled_leaves_the_volume_as_it_was(
    case: SourceCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Progress()
    make = Format.run_make

    def cancelled(self: Format, *arguments: object, **named: object) -> None:
        make(self, *arguments, **named)  # type: ignore[arg-type]
        progress.cancel()
        progress.advance(0)

    monkeypatch.setattr(Format, "run_make", cancelled)
    with pytest.raises(FspoolError, match="cancelled"):
        case.source.build(case.definition, BuildMode.NO_OVERWRITE, progress)
    nothing_is_left(tmp_path)
    monkeypatch.undo()
    build(case)
