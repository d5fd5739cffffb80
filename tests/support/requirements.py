"""Pytest plugin: what a test needs of the machine, and which tests a run in CI must not skip.

A test that needs what is not here is skipped with the reason. Where a run is to prove something
(`CI=true` or `FSPOOLFS_REQUIRED=1`), a skipped test that is marked `required` is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator

import pytest

#: Fixtures that mount; a test that uses one needs no `mount` mark of its own.
MOUNTING_FIXTURES = frozenset({"daemon", "make_daemon"})


def why_no_root() -> str:
    """Why this process cannot act as root; empty where it can."""
    return "" if os.geteuid() == 0 else "needs root"


def why_no_fuse() -> str:
    """Why this process cannot mount a FUSE file system; empty where it can."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"needs /dev/fuse: {error.strerror}"
    return why_no_programs("fusermount3") if why_no_root() else ""


def why_no_programs(*names: str) -> str:
    """Which of the programs `names` are not on the path; empty where all are."""
    missing = [name for name in names if shutil.which(name) is None]
    return f"needs {', '.join(missing)}" if missing else ""


def is_proof() -> bool:
    """Whether a required test must not be skipped in this run."""
    return os.environ.get("CI") == "true" or os.environ.get("FSPOOLFS_REQUIRED") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if MOUNTING_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.mount)
        for reason in filter(None, _unmet(item)):
            item.add_marker(pytest.mark.skip(reason=reason))


def _unmet(item: pytest.Item) -> Iterator[str]:
    if item.get_closest_marker("root"):
        yield why_no_root()
    if item.get_closest_marker("mount"):
        yield why_no_fuse()
    for mark in item.iter_markers("program"):
        yield why_no_programs(*mark.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if is_proof() and item.get_closest_marker("required") and _is_skip(report):
        report.outcome, report.longrepr = "failed", f"a required test was skipped: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if is_proof() and report.skipped:
        # The marks of its tests are unknown, so that any of them may be required.
        report.outcome, report.longrepr = "failed", f"a whole module was skipped: {_reason(report)}"
    return report


def _is_skip(report: pytest.TestReport) -> bool:
    """An expected failure is reported as skipped, too, but the test did run."""
    return report.skipped and not hasattr(report, "wasxfail")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    # pytest keeps (file, line, "Skipped: reason") of a skip.
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return text.removeprefix("Skipped: ")
