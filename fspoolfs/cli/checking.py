"""The command `check`: what a start of the daemon would find, told without changing anything."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fspoolfs import config
from fspoolfs.backends.registry import default_registry
from fspoolfs.cli import output
from fspoolfs.cli.params import json_option
from fspoolfs.cli.style import Command
from fspoolfs.config import Config
from fspoolfs.errors import BusyError, StorageError
from fspoolfs.service.checking import run
from fspoolfs.service.checking.findings import Finding, Report
from fspoolfs.system.atomic import LockFile

#: The file in a state directory that a daemon holds locked while it lives.
_LOCK = "lock"
_FOUND = 1


@click.command("check", cls=Command)
@click.option("--state-dir", type=click.Path(path_type=Path), metavar="DIR", help="As `mount` has it.")
@click.option("--storage-dir", type=click.Path(path_type=Path), metavar="DIR", help="As `mount` has it.")
@click.option(
    "--config", "file", type=click.Path(path_type=Path), metavar="FILE.toml", help="As `mount` has it."
)
@click.option(
    "--repair", is_flag=True, help="Say what can be mended without losing anything, ask, and do it."
)
@click.option("--yes", is_flag=True, help="With --repair: do it without being asked.")
@json_option
def check(
    *,
    state_dir: Path | None,
    storage_dir: Path | None,
    file: Path | None,
    repair: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Look at the state directory and the pools, as a start of the daemon would, and change nothing.

    Pools on volumes and servers are looked into as far as they are mounted. While a daemon runs, what it may
    just be doing is left out. The exit status is 0 when all is well and 1 when something was found.
    """
    if yes and not repair:
        raise click.UsageError("--yes is for --repair")
    if as_json and repair and not yes:
        raise click.UsageError("--repair asks a person; with --json it needs --yes")
    chosen = _settings(state_dir, storage_dir, file)
    with _quiet_log(), _alone(chosen.state_dir, wanted=repair) as daemon:
        found = _look(chosen, daemon)
        repaired: list[Repaired] = []
        if repair and _agreed(found, yes=yes, as_json=as_json):
            repaired = _carry_out(found)
            found = _look(chosen, daemon)
        if as_json:
            output.show_json(_document(chosen, daemon, found, repaired))
        else:
            _show(chosen, daemon, found, repaired)
    return _FOUND if found.findings else 0


@dataclass(frozen=True, slots=True)
class Repaired:
    """One repair that was carried out; `failure` is why it could not be."""

    what: str
    failure: str


def _settings(state_dir: Path | None, storage_dir: Path | None, file: Path | None) -> Config:
    chosen = config.defaults()
    if file is not None:
        chosen = config.read(file, chosen)
    given = {"state-dir": state_dir, "storage-dir": storage_dir}
    return config.apply(
        chosen, {key: value for key, value in given.items() if value is not None}, "command line"
    )


@contextmanager
def _quiet_log() -> Iterator[None]:
    """What reading says in the log is told as findings, and not on stderr as well."""
    logger = logging.getLogger("fspoolfs")
    before, logger.propagate = logger.propagate, False
    nowhere = logging.NullHandler()
    logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)
        logger.propagate = before


@contextmanager
def _alone(state: Path, *, wanted: bool) -> Iterator[str]:
    """Who runs on the state directory, as in "process 42"; with `wanted` nobody does, or begins to."""
    path, lock, daemon = str(state / _LOCK), None, ""
    try:
        if wanted and state.is_dir():
            lock = LockFile.acquire(path)
        else:
            daemon = LockFile.holder(path)
    except BusyError as error:
        raise BusyError(f"{error}: a daemon runs, and nothing is repaired beside it; stop it first") from None
    except OSError as error:
        raise StorageError.from_os(path, error) from error
    try:
        yield daemon
    finally:
        if lock is not None:
            lock.release()


def _look(chosen: Config, daemon: str) -> Report:
    registry = default_registry(chosen.storage_dir, libvirt_uri=chosen.libvirt_uri)
    return run.check(chosen.state_dir, registry, live=bool(daemon), patience=chosen.stall_time)


def _agreed(found: Report, *, yes: bool, as_json: bool) -> bool:
    """Whether there is something to repair, and whoever is asked wants it."""
    repairs = [one.repair.what for one in found.findings if one.repair is not None]
    if not repairs:
        return False
    if not as_json:
        click.echo("To be done:")
        for what in repairs:
            click.echo(f"  {what}")
    return yes or click.confirm("Do it?", default=False)


def _carry_out(found: Report) -> list[Repaired]:
    repaired = []
    for finding, failure in run.repair(found.findings):
        assert finding.repair is not None
        repaired.append(Repaired(finding.repair.what, failure))
    return repaired


def _document(chosen: Config, daemon: str, found: Report, repaired: list[Repaired]) -> dict[str, Any]:
    return {
        "state": str(chosen.state_dir),
        "daemon": daemon or None,
        "pools": found.pools,
        "items": found.items,
        "findings": [_row(finding) for finding in found.findings],
        "notes": found.notes,
        "repaired": [one.what for one in repaired if not one.failure],
        "not-repaired": {one.what: one.failure for one in repaired if one.failure},
    }


def _row(finding: Finding) -> dict[str, str | None]:
    return {
        "subject": finding.subject,
        "finding": finding.sentence,
        "remedy": finding.remedy or None,
        "repair": finding.repair.what if finding.repair is not None else None,
    }


def _show(chosen: Config, daemon: str, found: Report, repaired: list[Repaired]) -> None:
    for one in repaired:
        click.echo(f"could not {one.what}: {one.failure}" if one.failure else f"done: {one.what}")
    if daemon:
        click.echo(f"{chosen.state_dir}: {daemon} is the daemon on it; what it may just be doing is left out")
    for note in found.notes:
        click.echo(f"note: {note}")
    for finding in found.findings:
        remedy = f" ({finding.remedy})" if finding.remedy else ""
        click.echo(f"{finding.subject}: {finding.sentence}{remedy}")
    outcome = _count(len(found.findings), "finding") if found.findings else "all is well"
    click.echo(f"{_count(found.pools, 'pool')} and {_count(found.items, 'item')} looked at: {outcome}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
