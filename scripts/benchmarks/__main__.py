"""The command line: what to measure, on what, beside what; prints one table."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.errors import BenchError
from benchmarks.machine import facts
from benchmarks.measure_btrfs import measure_capacity, measure_snapshots
from benchmarks.measure_clients import measure_clients
from benchmarks.measure_copies import measure_copies
from benchmarks.measure_data import measure_data
from benchmarks.measure_growth import measure_growth
from benchmarks.measure_hang import measure_hang
from benchmarks.measure_items import measure_items
from benchmarks.measure_network import measure_network
from benchmarks.measure_purge import measure_purge
from benchmarks.measure_reads import measure_list, measure_status
from benchmarks.measure_scale import measure_scale
from benchmarks.measure_usage import measure_usage
from benchmarks.measure_volumes import measure_volumes
from benchmarks.peer_containers import install_engines, start_docker, start_podman
from benchmarks.peer_libvirt import install_libvirt, start_libvirt
from benchmarks.peer_lxd import install_lxd, start_lxd
from benchmarks.run import FULL, QUICK, Measurement, Run
from benchmarks.scratch import Scratch, scratch
from benchmarks.table import Row, Section, render

MEASUREMENTS: Mapping[str, Measurement] = {
    "items": measure_items,
    "clients": measure_clients,
    "status": measure_status,
    "list": measure_list,
    "data": measure_data,
    "hang": measure_hang,
    "scale": measure_scale,
    "capacity": measure_capacity,
    "snapshots": measure_snapshots,
    "copies": measure_copies,
    "usage": measure_usage,
    "purge": measure_purge,
    "volumes": measure_volumes,
    "network": measure_network,
    "growth": measure_growth,
}
#: Names for several of them.
GROUPS: Mapping[str, Sequence[str]] = {
    "tree": ("items", "clients", "status", "list", "data", "hang", "scale"),
    "storage": ("capacity", "snapshots", "copies", "usage", "purge", "volumes"),
}
#: What installs the peers, and the measurements that have these.
_PEERS = {
    install_engines: {"items"},
    install_libvirt: {"items", "list"},
    install_lxd: {"capacity", "snapshots"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("bench: only root can mount and empty caches", file=sys.stderr)
        return 2
    if options.program is not None and not options.program.is_file():
        print(f"bench: {options.program} is missing", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        names = _names(options.only)
        if options.peers:
            for install, users in _PEERS.items():
                if users.intersection(names):
                    install()
        with scratch(options.dir, options.images) as place:
            header = facts(place.path)
            sections = _measure(names, options, place)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(render(header, sections))
    if options.json is not None:
        _write_json(options.json, header, sections)
    return 0 if all(section.good for section in sections) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Measures fspoolfs beside what its parts cost, and prints one table.",
        epilog="The exit status is 0 if every goal is reached, 1 if one is not or a measurement failed, "
        "2 if nothing could be measured.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer turns and items, for a first look")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="also measure docker, podman, libvirt and LXD: installs them where they are missing, "
        "starts private instances, stops them again",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=(*MEASUREMENTS, *GROUPS),
        metavar="NAME",
        help=f"measure only this, may be repeated: {', '.join(MEASUREMENTS)}; "
        + "; ".join(f"{group} for {', '.join(names)}" for group, names in GROUPS.items()),
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE as well")
    parser.add_argument(
        "--dir",
        type=Path,
        help="work in this directory on a real disk, not on a fresh ext4 in an image; an ext4 from which "
        "many files were just removed makes all creations slow",
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=Path("/var/tmp"),
        metavar="DIR",
        help="where the images of file systems lie for the while, on a real disk; /var/tmp by default",
    )
    parser.add_argument("--program", type=Path, help="another fspoolfs to measure than this checkout's")
    return parser


def _measure(names: Sequence[str], options: argparse.Namespace, place: Scratch) -> list[Section]:
    run = Run(
        scratch=place,
        effort=QUICK if options.quick else FULL,
        program=options.program and options.program.absolute(),
        stores=(start_docker, start_podman, start_libvirt) if options.peers else (),
        listers=(start_libvirt,) if options.peers else (),
        limited=(start_lxd,) if options.peers else (),
    )
    sections = []
    for name in names:
        print(f"bench: measuring {name}", file=sys.stderr)
        sections.append(_section(name, MEASUREMENTS[name], run))
    return sections


def _names(only: Sequence[str] | None) -> Sequence[str]:
    """What is to be measured, each once."""
    if only is None:
        return tuple(MEASUREMENTS)
    chosen = {name for word in only for name in GROUPS.get(word, (word,))}
    return [name for name in MEASUREMENTS if name in chosen]


def _section(name: str, measurement: Measurement, run: Run) -> Section:
    """The rows of one measurement; one that fails leaves the others their turn.

    Its whole story goes to standard error, the first line of it into the table.
    """
    rows: list[Row] = []
    try:
        for row in measurement(run):
            rows.append(row)
            # At once, since some take many minutes and may be ended before the table is printed.
            print(f"bench: {'; '.join(filter(None, row.cells()))}", file=sys.stderr)
    except BenchError as error:
        print(f"bench: {name}: {error}", file=sys.stderr)
        return Section(name, rows, failure=str(error).partition("\n")[0])
    except Exception as error:
        traceback.print_exc()
        return Section(name, rows, failure=f"{type(error).__name__}: {error}")
    return Section(name, rows)


def _write_json(path: Path, header: Mapping[str, str], sections: Sequence[Section]) -> None:
    measured = [
        {"name": section.name, "failure": section.failure, "rows": [row.as_json() for row in section.rows]}
        for section in sections
    ]
    path.write_text(json.dumps({"machine": header, "measured": measured}, indent=2) + "\n")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Leave through every context on the way, as Ctrl-C does."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
