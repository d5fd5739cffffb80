"""The fixtures of the tests against a mounted daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import ControlTree
from mount.rewriting import SUBJECTS, Subject
from support.daemon import Daemon, daemons


@pytest.fixture(scope="module")
def tree(run_directory: Path) -> Iterator[ControlTree]:
    """The tree of one daemon for a whole module; its log is checked when the module ends."""
    with daemons(run_directory) as make:
        yield ControlTree(make())


@pytest.fixture
def own_tree(daemon: Daemon) -> ControlTree:
    """The tree of a daemon that is the test's alone, to restart it or to break its storage."""
    return ControlTree(daemon)


@pytest.fixture(scope="module")
def some_pool(tree: ControlTree) -> Path:
    """An active pool that the tests of a module share, each with items of its own."""
    return tree.active_pool()


@pytest.fixture
def pool(tree: ControlTree) -> Path:
    """An active pool of the test's own."""
    return tree.active_pool()


@pytest.fixture
def item(tree: ControlTree, some_pool: Path) -> Path:
    """A new item of `some_pool`."""
    return tree.new_item(some_pool, tree.new_name())


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest, tree: ControlTree, some_pool: Path) -> Subject:
    """A new pool or item whose document is about to be written."""
    return SUBJECTS[request.param](tree, some_pool)
