"""The daemon's settings: defaults for root and for users, a TOML file, and the command line over it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from fspoolfs.errors import InvalidError
from fspoolfs.system.libvirt_uri import DEFAULT_URI

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a daemon is started with. Times are in seconds; see the README for each setting.

    `log_file` is where a daemon in the background logs; one in the foreground uses stderr.
    """

    mountpoint: Path
    state_dir: Path
    storage_dir: Path
    allow_other: bool
    grace: float = 5.0
    stall_time: float = 10.0
    log_level: str = "info"
    log_file: Path | None = None
    libvirt_uri: str = DEFAULT_URI
    cgroup_parent: str | None = None
    foreground: bool = False
    sim: bool = False


def defaults() -> Config:
    """Root's are system directories, a user's those of the XDG base directory specification."""
    if os.geteuid() == 0:
        home = Path("/var/lib/fspoolfs")
        return Config(
            mountpoint=Path("/run/fspool"),
            state_dir=home,
            storage_dir=home / "storage",
            allow_other=True,
        )
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    state = _xdg("XDG_STATE_HOME", ".local/state") / "fspoolfs"
    return Config(
        mountpoint=Path(runtime) / "fspool" if runtime else state / "mount",
        state_dir=state,
        storage_dir=_xdg("XDG_DATA_HOME", ".local/share") / "fspoolfs",
        allow_other=False,
    )


def _xdg(variable: str, fallback: str) -> Path:
    """A relative path in such a variable is to be ignored, says the specification."""
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / fallback


#: What only the command line says.
_MODES = ("foreground", "sim")
#: The names of settings as they are written, and the fields that they set.
SETTINGS = {one.name.replace("_", "-"): one.name for one in fields(Config) if one.name not in _MODES}
#: Those that are numbers of seconds.
TIMES = ("grace", "stall-time")
#: A control group from the root of its hierarchy, as /proc/PID/cgroup has it.
_GROUP = re.compile(r"/|(?:/(?!\.{1,2}(?:/|$))[^/\n]+)+")
_PATHS = ("mountpoint", "state-dir", "storage-dir", "log-file")


def read(path: Path, config: Config) -> Config:
    """`config` with what the TOML file at `path` says. Raises `InvalidError`."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path}: {error}") from error
    return apply(config, table, str(path))


def apply(config: Config, settings: Mapping[str, object], where: str) -> Config:
    """`config` with `settings`, whose names are those of the TOML file and of the options."""
    changes: dict[str, object] = {}
    for key, value in settings.items():
        if key not in SETTINGS:
            raise InvalidError(f"{where}: unknown setting {key!r}; there are {', '.join(sorted(SETTINGS))}")
        changes[SETTINGS[key]] = _convert(key, value, where)
    return replace(config, **changes)  # type: ignore[arg-type]


def _convert(key: str, value: object, where: str) -> object:
    if key == "allow-other" and isinstance(value, bool):
        return value
    if key in TIMES and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    if key == "log-level" and value in LOG_LEVELS:
        return value
    if key == "libvirt-uri" and isinstance(value, str) and ":" in value:
        return value
    if key == "cgroup-parent" and isinstance(value, str) and _GROUP.fullmatch(value):
        return value
    if key in _PATHS and isinstance(value, str | Path) and str(value):
        return Path(os.path.abspath(Path(value).expanduser()))
    raise InvalidError(f"{where}: {value!r} is no value for {key}")
