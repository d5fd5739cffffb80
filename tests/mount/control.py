"""A mounted control tree as tests use it: new pools and items, requests, and what is refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from support.daemon import Daemon

_names = count(1)


def request(file: Path, text: str) -> None:
    """One write(2) of `text`, as `echo` sends it; raises the `OSError` that it is answered with."""
    descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


def value(file: Path) -> str:
    """What a file of one line shows, without the newline."""
    text = file.read_text()
    assert text.endswith("\n"), f"{file} does not end its line: {text!r}"
    return text.removesuffix("\n")


def last_error(directory: Path) -> str:
    """The sentence in the directory's `last_error`, empty where there is none."""
    return (directory / "last_error").read_text().removesuffix("\n")


@contextmanager
def refused(*numbers: int) -> Iterator[None]:
    """Expect an `OSError` with one of the errno `numbers`."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
        yield
    expected = " or ".join(errno.errorcode[number] for number in numbers)
    got = errno.errorcode.get(caught.value.errno or 0, str(caught.value))
    assert caught.value.errno in numbers, f"refused with {got}, not {expected}"


@dataclass(frozen=True, slots=True)
class ControlTree:
    """The tree of one daemon. Every pool gets a name of its own, so that tests share a daemon."""

    daemon: Daemon

    @property
    def mount(self) -> Path:
        return self.daemon.mount

    @property
    def define(self) -> Path:
        return self.mount / "define"

    @property
    def pools(self) -> Path:
        return self.mount / "pools"

    def new_name(self) -> str:
        """A name that no pool has had."""
        return f"pool{next(_names)}"

    def defined_pool(self, inner: str = "") -> Path:
        """The directory of a new pool whose document holds `inner` behind its name."""
        name = self.new_name()
        request(self.define, f"<fspool type='dir'><name>{name}</name>{inner}</fspool>")
        return self.pools / name

    def active_pool(self, inner: str = "") -> Path:
        """The same, built and started."""
        pool = self.defined_pool(inner)
        request(pool / "status", "start build")
        return pool

    def new_item(self, pool: Path | None = None, name: str = "web") -> Path:
        """The directory of a new item, in a new pool unless one is named."""
        item = (pool or self.active_pool()) / "items" / name
        item.mkdir()
        return item
