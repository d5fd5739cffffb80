"""Containers for tests: the smallest root directory, and how each runtime runs a command in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.shell import run

#: Seconds that a runtime may take to let a container end.
END_LIMIT = 20.0

BUSYBOX = shutil.which("busybox") or ""


def make_root(directory: Path) -> Path:
    """A root directory with a shell and nothing else."""
    for name in ("bin", "proc", "dev", "sys", "data", "tmp", "etc"):
        (directory / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, directory / "bin" / "busybox")
    for name in ("sh", "cat", "sleep", "touch"):
        (directory / "bin" / name).symlink_to("busybox")
    return directory


@dataclass(frozen=True)
class Place:
    """Where a runtime keeps what it needs, the root directory of its containers, and their control group.

    The latter is the parent of each container's own; "" leaves it to the runtime.
    """

    directory: Path
    root: Path
    group: str = ""


@dataclass(frozen=True)
class Launch:
    """How a container is started, and how what is left of it is removed."""

    argv: list[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    remove: list[str | Path] | None = None


def bwrap(place: Place, source: Path, script: str) -> Launch:
    return Launch([
        *("bwrap", "--bind", place.root, "/", "--proc", "/proc", "--dev", "/dev"),
        *("--bind", source, "/data", "--unshare-all", "--die-with-parent", "/bin/sh", "-c", script),
    ])  # fmt: skip


def runc(place: Place, source: Path, script: str, *, ids: tuple[int, int] | None = None) -> Launch:
    """With `ids`, the first one and how many, in a user namespace in which those count from 0."""
    namespaces = ["pid", "mount", "ipc", "uts", *(["user"] if ids else [])]
    mappings = [{"containerID": 0, "hostID": ids[0], "size": ids[1]}] if ids else []
    bundle = place.directory / "bundle"
    bundle.mkdir()
    name = f"test-{place.directory.parent.name}-{place.directory.name}"
    group = {"cgroupsPath": f"{place.group}/{name}"} if place.group else {}
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": [], "effective": [], "permitted": []},
        },
        "root": {"path": str(place.root), "readonly": False},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": str(source), "options": ["rbind", "rw"]},
        ],
        "linux": {
            "namespaces": [{"type": one} for one in namespaces],
            "uidMappings": mappings,
            "gidMappings": mappings,
            **group,
        },
    }
    (bundle / "config.json").write_text(json.dumps(config))
    command: list[str | Path] = ["runc", "--root", place.directory / "state"]
    return Launch([*command, "run", "-b", bundle, name], remove=[*command, "delete", "--force", name])


def podman(place: Place, source: Path, script: str) -> Launch:
    settings = place.directory / "containers.conf"
    settings.write_text(
        '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
        '[network]\nnetwork_backend = "netavark"\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        f'tmp_dir = "{place.directory}/tmp"\n'
    )
    command: list[str | Path] = [
        *("podman", "--root", place.directory / "storage", "--runroot", place.directory / "run"),
        *("--storage-driver", "vfs"),
    ]
    argv: list[str | Path] = [
        *(*command, "run", "--rm", "--interactive", "--network=none"),
        *(("--cgroup-parent", place.group) if place.group else ()),
        *("--name", "test", "--volume", f"{source}:/data", "--rootfs", place.root, "/bin/sh", "-c", script),
    ]
    env = {"CONTAINERS_CONF": str(settings)}
    return Launch(argv, env, remove=[*command, "rm", "--force", "--ignore", "--time", "0", "test"])


RUNTIMES: dict[str, Callable[[Place, Path, str], Launch]] = {"bwrap": bwrap, "runc": runc, "podman": podman}


class Container:
    """A running container; `end` lets the script's `read` return, and the container with it."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._process = subprocess.Popen(
            launch.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **launch.env},
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> str:
        """Close its input and wait; what it printed. `AssertionError` unless its status is 0."""
        output, _ = self._process.communicate(timeout=END_LIMIT)
        assert self._process.returncode == 0, output.decode(errors="replace")
        return output.decode()

    def close(self) -> None:
        """Take it away, whatever it does."""
        if self.is_running:
            if self._launch.remove is not None:
                run(*self._launch.remove, env=dict(self._launch.env), check=False)
            self._process.kill()
        self._process.communicate(timeout=END_LIMIT)
        if self._launch.remove is not None:
            run(*self._launch.remove, env=dict(self._launch.env), check=False)
