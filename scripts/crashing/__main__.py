"""The command line: which operations, which of their crashes; prints a line for each operation."""

from __future__ import annotations

import argparse
import os
import random
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from crashing.calls import numbers
from crashing.errors import CrashtestError
from crashing.experiment import End, Experiment, Point, Result
from crashing.leaving import LEAVING
from crashing.operations import LIMIT_OPERATIONS, OPERATIONS, Operation
from crashing.volume_operations import FORMATS, volume_operations
from crashing.workplace import FOLDER, VOLUME, Workplace
from support import zfs
from support.requirements import why_no_fuse, why_no_programs
from support.shell import run
from support.volumes import KINDS

_ROW = "{:<24} {:>7} {:>7} {:>10} {:>7} {:>7} {:>11} {:>8}"
#: Of a violation this many lines of so many characters are printed; all of it is kept in a file.
_SHOWN, _WIDTH = 12, 240
#: What a file is called before it gets its name.
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\b")
_HEADER = ("operation", "changes", "crashes", "completed", "partly", "undone", "violations", "seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 when the contract is violated, 2 when that could not be tested."""
    options = _parser().parse_args(arguments)
    missing = (
        "" if os.geteuid() == 0 else "only root can mount and trace"
    ) or why_no_fuse() or why_no_programs("cc", "dash", "setfattr", "setpriv")  # fmt: skip
    if missing:
        print(f"crashtest: {missing}", file=sys.stderr)
        return 2
    LEAVING.install()
    try:
        return _test(options)
    except (AssertionError, CrashtestError) as error:
        print(f"crashtest: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crashtest",
        description="Kills the daemon at every system call that changes storage and checks what is left.",
        epilog="The exit status is 0 if the crash contract holds, 1 if it is violated, 2 if that could not "
        "be tested.",
    )
    names = _names()
    parser.add_argument("--list", action="store_true", help="print the names of the operations")
    parser.add_argument("--every", type=_positive, default=1, metavar="N", help="only every Nth crash")
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="OPERATION",
        help="only this operation, may be repeated",
    )
    parser.add_argument("--limit", type=_positive, metavar="K", help="at most K crashes of each operation")
    parser.add_argument(
        "--seed", type=int, default=0, help="which crashes --every and --limit choose; 0 by default"
    )
    parser.add_argument(
        "--on",
        choices=(
            FOLDER,
            *(kind for kind in KINDS if KINDS[kind].make),
            *(f"{VOLUME}{format}" for format in FORMATS),
        ),
        default=FOLDER,
        help="what the pools lie on: a folder of --dir, a file system in an image there, or volumes of "
        "their own, which have other operations",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("/var/tmp"),
        help="where to work, on a real disk; /var/tmp by default",
    )
    return parser


def _operations(on: str) -> Sequence[Operation]:
    if on.startswith(VOLUME):
        return volume_operations(on.removeprefix(VOLUME))
    limited = on != FOLDER and KINDS[on].quota
    return (*OPERATIONS, *(LIMIT_OPERATIONS if limited else ()))


def _names() -> list[str]:
    of_volumes = (operation for format in FORMATS for operation in volume_operations(format))
    return list(dict.fromkeys(operation.name for operation in (*OPERATIONS, *LIMIT_OPERATIONS, *of_volumes)))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _test(options: argparse.Namespace) -> int:
    if options.list:
        print("\n".join(_names()))
        return 0
    base = options.dir / f"fspoolfs-crashtest-{secrets.token_hex(8)}"
    kept = base / "violations"
    results: list[Result] = []
    began = time.monotonic()
    stack = ExitStack()
    try:
        base.mkdir(mode=0o711)
        if options.on == f"{VOLUME}zfs":
            stack.enter_context(zfs.running("--enable-xattr"))
        calls = numbers()
        print(_ROW.format(*_HEADER))
        for operation in _operations(options.on):
            if options.only is None or operation.name in options.only:
                results += _test_operation(operation, base, calls, options)
        _print_row("total", results, changes=None, seconds=time.monotonic() - began)
    finally:
        stack.close()
        if kept.exists():
            print(f"violations: what each left is in {kept}")
        else:
            run("rm", "-rf", "--one-file-system", "--", base)
    return 1 if any(result.violations for result in results) else 0


def _test_operation(
    operation: Operation, base: Path, calls: Mapping[int, str], options: argparse.Namespace
) -> list[Result]:
    began = time.monotonic()
    place = Workplace(base / operation.name.replace(" ", "-"), calls, options.on)
    try:
        experiment = Experiment(operation, place)
        chosen = _choose(experiment.points(), operation.name, options)
        results = [_attempt(experiment, point, place, base / "violations") for point in chosen]
    finally:
        place.close()
    _print_row(operation.name, results, changes=len(experiment.calls), seconds=time.monotonic() - began)
    _print_violations(experiment, results, place)
    return results


def _print_violations(experiment: Experiment, results: Sequence[Result], place: Workplace) -> None:
    """The first lines of each, once, with paths that begin in the daemon's own directory."""
    points: dict[str, list[Point]] = {}
    for result in results:
        for violation in result.violations:
            text = _TEMPORARY.sub(".TEMPORARY", violation.replace(f"{place.daemon.base}/", ""))
            points.setdefault(text, []).append(result.point)
    for text, where in points.items():
        first = _describe(experiment, where[0]).replace(f"{place.daemon.base}/", "")
        print(f"  {first}{f' (and {len(where) - 1} more)' if len(where) > 1 else ''}:")
        lines = text.splitlines()
        more = [f"... and {len(lines) - _SHOWN} lines more"] if len(lines) > _SHOWN else []
        for line in (*lines[:_SHOWN], *more):
            print(f"    {line[:_WIDTH]}")


def _choose(points: Sequence[Point], name: str, options: argparse.Namespace) -> Sequence[Point]:
    chosen = points[options.seed % options.every :: options.every]
    if options.limit is not None and options.limit < len(chosen):
        numbers = random.Random(f"{options.seed} {name}").sample(range(len(chosen)), options.limit)
        chosen = [chosen[number] for number in sorted(numbers)]
    return chosen


def _attempt(experiment: Experiment, point: Point, place: Workplace, violations: Path) -> Result:
    """One crash; what a violation left before and after the restart is kept, with the log."""
    crashed = place.daemon.base.parent / "crashed"
    result = experiment.attempt(point, keep=lambda: place.copy_to(crashed))
    if result.violations:
        kept = violations / f"{crashed.parent.name}-{point.name}"
        kept.mkdir(parents=True)
        if crashed.exists():  # not if it went wrong before the crash
            crashed.rename(kept / "crashed")
        place.copy_to(kept / "restarted")
        (kept / "log").write_text(place.daemon.log)
        (kept / "violations").write_text("\n".join((_describe(experiment, point), *result.violations, "")))
    else:
        run("rm", "-rf", "--one-file-system", "--", crashed)
    return result


def _describe(experiment: Experiment, point: Point) -> str:
    if point.kill is None:
        return "killed after success was told"
    call = experiment.calls[point.kill.number - 1]
    moment = "after" if point.kill.after else "before"
    return f"killed {moment} change {point.kill.number}, {call.name} {call.target}"


def _print_row(name: str, results: Sequence[Result], *, changes: int | None, seconds: float) -> None:
    ends = [sum(result.end is end for result in results) for end in End]
    violated = sum(bool(result.violations) for result in results)
    shown = "" if changes is None else changes
    print(_ROW.format(name, shown, len(results), *ends, violated, f"{seconds:.1f}"))


if __name__ == "__main__":
    sys.exit(main())
