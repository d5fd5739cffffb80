"""The command line: which command, how long, how large a guest."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from vmtesting import archive, machine, openzfs
from vmtesting.errors import EmulatorError, VmtestError
from vmtesting.guest import Guest

PROJECT = Path(__file__).parents[2]
#: The project's own environment, the same path in the guest.
_PYTHON = ".venv/bin/python"
_PYTEST = (_PYTHON, "-m", "pytest", "-c", "tests/vm/guest.ini", "--rootdir=.", "--confcutdir=tests/vm")
_COMMAND = (*_PYTEST, "tests/vm")
#: Those that need OpenZFS.
_OPENZFS = (
    *_PYTEST,
    *sorted(str(path.relative_to(PROJECT)) for path in PROJECT.glob("tests/vm/test_openzfs_*.py")),
)
#: Tells tests that they are in the guest, pytest to load no plugin that it is not told to, and Python to
#: hand over at once what it says: how far the tests came is known when the guest breaks.
_VARIABLES = {"FSPOOLFS_GUEST": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONUNBUFFERED": "1"}
#: Tells them that zfs is OpenZFS.
_OPENZFS_VARIABLE = "FSPOOLFS_OPENZFS"
#: What else of the environment matters there.
_PASSED_ON = ("CI", "FSPOOLFS_REQUIRED", "FSPOOLFS_CEPH")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    options = _parser().parse_args(arguments)
    default = _OPENZFS if options.openzfs else _COMMAND
    command = options.command[options.command[:1] == ["--"] :] or default
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    began = time.monotonic()
    try:
        found = machine.look()
        variables = _VARIABLES | ({_OPENZFS_VARIABLE: "1"} if options.openzfs else {})
        layers = [openzfs.layer(found.version)] if options.openzfs else []
        if command == default:
            _compile(command, variables)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | variables
        files = archive.initial_files(found, command, PROJECT, environment, layers)
        try:
            status = _run(found, files, options, options.timeout)
        except EmulatorError as error:
            # It says nothing of what was tested. Once more, and no oftener: the time is that of both.
            print(f"vmtest: {error}; the guest is booted again", file=sys.stderr)
            status = _run(found, files, options, options.timeout - (time.monotonic() - began))
    except VmtestError as error:
        print(f"vmtest: {error}", file=sys.stderr)
        return error.status
    print(f"vmtest: status {status} after {time.monotonic() - began:.0f} s", file=sys.stderr)
    return status


def _run(found: machine.Machine, files: bytes, options: argparse.Namespace, timeout: float) -> int:
    with tempfile.TemporaryDirectory(prefix="vmtest-") as work:
        guest = Guest(
            found,
            Path(work),
            memory=options.memory,
            processors=options.processors,
            network=options.network,
        )
        return guest.run(files, timeout=timeout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vmtest",
        usage="%(prog)s [options] [-- COMMAND...]",
        description="Runs COMMAND, by default the tests in tests/vm, in a virtual machine with Debian's "
        "kernel.",
        epilog="The exit status is the command's; 77 if something is not installed, 124 if the time was up, "
        "125 if the guest broke.",
    )
    parser.add_argument(
        "--timeout", type=float, default=600, metavar="S", help="seconds for all; 600 by default"
    )
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB", help="2048 by default")
    parser.add_argument("--processors", type=int, default=2, metavar="N", help="2 by default")
    parser.add_argument(
        "--network",
        action="store_true",
        help="with a network card, behind which is what this process reaches: best called in a network "
        "namespace of its own",
    )
    parser.add_argument(
        "--openzfs",
        action="store_true",
        help="with OpenZFS in the guest, built for its kernel by the first run, in some minutes; by default "
        "the tests that need it",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _compile(tests: Sequence[str], variables: Mapping[str, str]) -> None:
    """Leave bytecode for the guest, where compiling takes twenty times as long.

    Modules of tests are compiled by pytest, which changes their assertions.
    """
    for command in (
        (_PYTHON, "-m", "compileall", "-q", "fspoolfs", "scripts"),
        (*tests, "--collect-only"),
    ):
        subprocess.run(
            command,
            cwd=PROJECT,
            check=False,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
