"""Pytest plugin: a test project with the rules of this one, for tests of the rules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


class Project:
    """A project that has the plugins of this one and no tests, run in a process of its own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self.path = pytester.path
        pytester.makeini(
            f"[pytest]\npythonpath = {TESTS}\naddopts = -ra -p no:cacheprovider\n"
            "markers =\n  required:\n  root:\n  mount:\n  program:\n"
        )
        pytester.makeconftest('pytest_plugins = ["support.daemon", "support.leaks", "support.requirements"]')

    def module(self, name: str, body: str) -> None:
        """Write a module that is no test."""
        self._pytester.makepyfile(**{name: body})

    def test(
        self, body: str, *, options: tuple[str, ...] = (), within: tuple[str, ...] = ()
    ) -> pytest.RunResult:
        """Run one module of tests, in a process that the command `within` starts.

        Not by `runpytest`, which would impose this run's temporary directory on that run.
        """
        self._pytester.makepyfile(f"import os, pathlib, pytest, subprocess\n{body}")
        return self._pytester.run(*within, sys.executable, "-m", "pytest", *options, timeout=60)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the rules of this one, outside CI."""
    for variable in ("CI", "FSPOOLFS_REQUIRED"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Project(pytester)
