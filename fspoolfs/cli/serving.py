"""The commands `mount` and `unmount`: a daemon begins, and ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from fspoolfs import config, mountpoint
from fspoolfs.cli.style import Command


class _AbsolutePath(click.ParamType[Path]):
    name = "path"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return Path(value).absolute()


_PATH = _AbsolutePath()
_WHERE = f"MOUNTPOINT, default: {config.defaults().mountpoint}"


@click.command(cls=Command, help=f"Start a daemon that serves the control tree.\n\n{_WHERE}")
@click.argument("at", metavar="[MOUNTPOINT]", required=False, type=_PATH)
@click.option("--state-dir", type=_PATH, metavar="DIR", help="What the host remembers of pools.")
@click.option("--storage-dir", type=_PATH, metavar="DIR", help="Where pools lie that name no target.")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Settings, which options override.",
)
@click.option("--foreground", is_flag=True, help="Stay, and log to stderr.")
@click.option(
    "--allow-other/--no-allow-other",
    default=None,
    help="Let other users in, as far as modes allow (default for root).",
)
@click.option("--grace", type=float, metavar="SECONDS", help="How long a verb is waited for.")
@click.option(
    "--stall-time",
    type=float,
    metavar="SECONDS",
    help="After which a server that is silent stalls a pool.",
)
@click.option("--log-level", type=click.Choice(config.LOG_LEVELS), help="What is logged at least: info.")
@click.option(
    "--log-file", type=_PATH, metavar="FILE", help="Where, instead of the state directory or stderr."
)
@click.option("--libvirt-uri", metavar="URI", help="Whose storage pools libvirt's volumes are of.")
@click.option(
    "--cgroup-parent", metavar="GROUP", help="Below which control group those of items with limits are."
)
@click.option("--sim", is_flag=True, help="Simulate storage in memory, touching no disk.")
def mount(
    *, at: Path | None, file: Path | None, foreground: bool, sim: bool, **settings: str | float | Path | None
) -> int:
    # The daemon brings trio and FUSE, which nothing else needs.
    from fspoolfs.cli import starting

    chosen = config.defaults()
    if file is not None:
        chosen = config.read(file, chosen)
    said = {name.replace("_", "-"): value for name, value in settings.items() if value is not None}
    if at is not None:
        said["mountpoint"] = at
    chosen = config.apply(chosen, said, "command line")
    return starting.start(replace(chosen, foreground=foreground, sim=sim))


@click.command(cls=Command, help=f"Unmount a control tree; its daemon ends.\n\n{_WHERE}")
@click.argument("at", metavar="[MOUNTPOINT]", required=False, type=_PATH)
def unmount(*, at: Path | None) -> None:
    mountpoint.unmount(at or config.defaults().mountpoint)
