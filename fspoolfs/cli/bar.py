"""A progress bar on a terminal, made from the lines of a `job` file; elsewhere nothing is shown."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PERCENT = re.compile(r"(.*?)\s*(\d+)%")


class Bar:
    """Shown on stderr, so that what a command prints can be redirected."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def start(self) -> None:
        if self._progress is not None or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn(escape(self._label)),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def show(self, line: str) -> None:
        """`line` is what a job says: "copying 43%", "purging 1200 files"."""
        self.start()
        if self._progress is None or self._task is None:
            return
        found = _PERCENT.fullmatch(line)
        if found is None:
            self._progress.update(self._task, description=line)
        else:
            self._progress.update(self._task, description=line, total=100, completed=int(found[2]))

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
