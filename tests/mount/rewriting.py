"""What the tests of writers and editors share: documents that differ in one value, and their faults.

A subject is a pool or an item, and has a `config.xml`. Each document of it sets a number that can be
read back elsewhere, so that a test sees whether the definition took effect, and not only what the
file shows.
"""

from __future__ import annotations

import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Literal

from mount.control import ControlTree, last_error
from support.wait import eventually

Fault = Literal["malformed", "invalid", "truncated"]
FAULTS: tuple[Fault, ...] = ("malformed", "invalid", "truncated")

_numbers = count(1)


class Subject(ABC):
    """An object with a `config.xml`, and the state that it had before it was written to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "config.xml"
        self.before = self.config.read_bytes()
        self.names = sorted(os.listdir(directory))
        self.mode_before = self.mode()
        self.mode_wanted = 0o4000 | next(_numbers) % 0o1000

    @abstractmethod
    def document(self) -> str:
        """A document that sets `mode_wanted`, of several lines."""

    @abstractmethod
    def mode(self) -> int:
        """The permission bits that are in force."""

    def faulty(self, fault: Fault) -> str:
        good = self.document()
        match fault:
            case "malformed":
                return good.replace("</mode>", "</mod>")
            case "invalid":
                return good.replace("<mode>", "<colour>blue</colour>\n<mode>")
            case "truncated":
                return good[: good.index("</permissions>")]

    def assert_redefined(self) -> None:
        assert self.mode() == self.mode_wanted
        assert f"<mode>{self.mode_wanted:04o}</mode>" in self.config.read_text()
        self._assert_tidy()

    def assert_unchanged(self, fault: Fault) -> None:
        """The old definition is there and in force, and `last_error` tells the reason and the line."""
        eventually(self.config.exists, what="a config.xml that was removed is back")
        assert self.config.read_bytes() == self.before
        assert self.mode() == self.mode_before
        self._assert_tidy()
        words = {"malformed": "malformed", "invalid": "<colour>", "truncated": " end"}
        sentence = last_error(self.directory)
        assert words[fault] in sentence, sentence
        assert re.search(r"\bline \d+\b", sentence), sentence

    def _assert_tidy(self) -> None:
        """No temporary file is left."""
        assert sorted(os.listdir(self.directory)) == self.names


class PoolSubject(Subject):
    def document(self) -> str:
        return (
            f"<fspool type='dir'>\n  <name>{self.directory.name}</name>\n  <target>\n    <permissions>\n"
            f"      <mode>{self.mode_wanted:04o}</mode>\n    </permissions>\n  </target>\n</fspool>\n"
        )

    def mode(self) -> int:
        return stat.S_IMODE((self.directory / "items").stat().st_mode)


class ItemSubject(Subject):
    def document(self) -> str:
        return (
            f"<fs>\n  <name>{self.directory.name}</name>\n  <permissions>\n"
            f"    <mode>{self.mode_wanted:04o}</mode>\n  </permissions>\n</fs>\n"
        )

    def mode(self) -> int:
        return stat.S_IMODE((self.directory / "data").stat().st_mode)


def new_pool(tree: ControlTree, some_pool: Path) -> Subject:
    """A pool of its own, with its own `last_error`."""
    return PoolSubject(tree.active_pool())


def new_item(tree: ControlTree, some_pool: Path) -> Subject:
    """An item of `some_pool`."""
    return ItemSubject(tree.new_item(some_pool, f"item{next(_numbers)}"))


#: What can be redefined, by name.
SUBJECTS: dict[str, Callable[[ControlTree, Path], Subject]] = {"pool": new_pool, "item": new_item}
