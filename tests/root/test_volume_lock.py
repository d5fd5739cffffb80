"""A device is left to whoever works on it: another daemon, a program that a killed one has left."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.cases import SourceCase, on_image
from fspoolfs.backends import volume_lock
from fspoolfs.backends.source import BuildMode
from fspoolfs.errors import BusyError, CancelledError
from fspoolfs.progress import Progress
from fspoolfs.system import loop
from support.needs import needs_program, needs_root
from support.wait import eventually

pytestmark = [needs_root, needs_program("blkid", "wipefs", "mkfs.ext4"), pytest.mark.required]


@pytest.fixture
def case(tmp_path: Path) -> Iterator[SourceCase]:
    made = on_image(tmp_path, "ext4")
    try:
        made.source.build(made.definition, BuildMode.NO_OVERWRITE, Progress())
        yield made
    finally:
        made.close()


@pytest.fixture
def somebody(case: SourceCase, tmp_path: Path) -> Iterator[int]:
    """The descriptor of somebody who works on the volume."""
    (image,) = (tmp_path / "volumes").rglob("*.img")
    with image.open("rb+") as file:
        device = loop.attach(file.fileno())
    fcntl.flock(device, fcntl.LOCK_EX)
    try:
        yield device
    finally:
        os.close(device)


def test_building_and_starting_wait_and_can_be_cancelled(case: SourceCase, somebody: int) -> None:
    source, definition = case.source, case.definition
    for act in (
        lambda progress: source.build(definition, BuildMode.OVERWRITE, progress),
        lambda progress: source.attach(definition, progress),
    ):
        progress = Progress()
        progress.cancel()
        with pytest.raises(CancelledError):
            act(progress)


def test_a_start_goes_on_when_the_other_has_ended(
    case: SourceCase, somebody: int, caplog: pytest.LogCaptureFixture
) -> None:
    roots = []
    with caplog.at_level("WARNING"):
        thread = threading.Thread(
            target=lambda: roots.append(case.source.attach(case.definition, Progress()))
        )
        thread.start()
        eventually(lambda: "it is waited for" in caplog.text, what="the start says that it waits")
        assert roots == []
        fcntl.flock(somebody, fcntl.LOCK_UN)
        thread.join()
    assert len(roots) == 1
    roots[0].close()
    case.source.detach(case.definition, force=False)


def test_a_deletion_which_nobody_can_cancel_is_refused(
    case: SourceCase, somebody: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_lock, "_PATIENCE", 0.0)
    with pytest.raises(BusyError, match="another program works on"):
        case.source.delete(case.definition)
