"""The storage of an operation: a directory, or a file system of some kind in an image.

Both can be saved and put back as they were. What an image holds (subvolumes, project ids) is not to be
had by copying files, so the image is copied as a whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from support.shell import run
from support.volumes import KINDS, fill_image, mount_image
from support.wait import eventually


class Disk(Protocol):
    """What lies at one place. No daemon runs when it is asked for something."""

    def save(self) -> None:
        """Keep what there is now."""

    def put_back(self) -> None:
        """Bring back what was kept."""

    def close(self) -> None:
        """Let the place be removed."""


class Folder:
    """A directory like any other."""

    def __init__(self, place: Path, saved: Path) -> None:
        self._place = place
        self._saved = saved

    def save(self) -> None:
        run("cp", "-a", "--sparse=always", "--", self._place, self._saved)

    def put_back(self) -> None:
        run("rm", "-rf", "--one-file-system", "--", self._place)
        run("cp", "-a", "--sparse=always", "--", self._saved, self._place)

    def close(self) -> None:
        return


class Image:
    """A file system of one of `support.volumes.KINDS`, mounted at the place."""

    def __init__(self, kind: str, place: Path, saved: Path) -> None:
        self._kind = KINDS[kind]
        self._place = place
        self._saved = saved
        self._image = saved.with_name(f"{saved.name}.live")
        fill_image(self._kind, self._image)
        mount_image(self._kind, self._image, place)

    def save(self) -> None:
        self._copy(self._image, self._saved)

    def put_back(self) -> None:
        self._copy(self._saved, self._image)

    def _copy(self, source: Path, target: Path) -> None:
        """Nothing is mounted meanwhile, and so everything is in the file."""
        self.close()
        run("cp", "--sparse=always", "--", source, target)
        mount_image(self._kind, self._image, self._place, is_new=False)

    def close(self) -> None:
        eventually(
            # What was taken away of devices on it may take a moment to end.
            lambda: run("umount", self._place, check=False).returncode == 0,
            what=f"{self._place} is unmounted",
        )
