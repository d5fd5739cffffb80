"""What this machine has to run a guest with, or which package is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vmtesting.errors import MissingError

#: What the guest's root is made of, by the names of its kernel's modules.
_MODULES = ("virtio_pci", "virtio_console", "virtiofs", "overlay")

_KERNELS = Path("/boot")
_TREES = Path("/lib/modules")
#: Where Debian has virtiofsd, which nobody calls by name: with qemu up to version 7, and since.
_VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")


@dataclass(frozen=True, slots=True)
class Machine:
    """The programs, and the kernel with the modules to load, in that order."""

    qemu: str
    virtiofsd: str
    busybox: Path
    version: str
    kernel: Path
    modules: tuple[Path, ...]


def look() -> Machine:
    """Raises `MissingError` with what is to be installed."""
    if os.geteuid() != 0:
        raise MissingError("only root can hand this machine's files to a guest")
    missing: list[str] = []

    def need(found: str | None, what: str, package: str) -> str:
        if found is None:
            missing.append(f"{what} (package {package})")
        return found or ""

    qemu = need(_program("qemu-system-x86_64"), "qemu-system-x86_64", "qemu-system-x86")
    virtiofsd = need(_program("virtiofsd", *_VIRTIOFSD), "virtiofsd", "qemu-system-common")
    busybox = need(_static_busybox(), "busybox without libraries", "busybox-static")
    version = need(_kernel_version(), "Debian's kernel", "linux-image-cloud-amd64")
    modprobe = need(_program("modprobe", "/sbin/modprobe"), "modprobe", "kmod")
    need(_program("setpriv"), "setpriv", "util-linux")
    if missing:
        raise MissingError(f"missing: {', '.join(missing)}; scripts/install --test installs what is missing")
    return Machine(
        qemu=qemu,
        virtiofsd=virtiofsd,
        busybox=Path(busybox),
        version=version,
        kernel=_KERNELS / f"vmlinuz-{version}",
        modules=tuple(_modules(modprobe, version)),
    )


def _program(name: str, *elsewhere: str) -> str | None:
    return shutil.which(name) or next((path for path in elsewhere if os.access(path, os.X_OK)), None)


def _static_busybox() -> str | None:
    """busybox, if it needs no dynamic loader: in the initial file system there is none."""
    path = shutil.which("busybox")
    return path if path is not None and b"/ld-linux" not in Path(path).read_bytes() else None


def _kernel_version() -> str | None:
    """The newest installed kernel whose modules are there too."""
    versions = [path.name.removeprefix("vmlinuz-") for path in _KERNELS.glob("vmlinuz-*-amd64")]
    return max((version for version in versions if (_TREES / version).is_dir()), key=_natural, default=None)


def _natural(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version)]


def _modules(modprobe: str, version: str) -> Iterable[Path]:
    """Each module after those that it needs; what is built into the kernel is no file."""
    found: dict[Path, None] = {}
    for name in _MODULES:
        told = subprocess.run(
            (modprobe, "--set-version", version, "--show-depends", name),
            capture_output=True,
            text=True,
            check=False,
        )
        if told.returncode != 0:
            raise MissingError(f"the kernel {version} has no module {name}: {told.stderr.strip()}")
        for line in told.stdout.splitlines():
            kind, _, path = line.partition(" ")
            if kind == "insmod":
                found[Path(path.split()[0])] = None
    return found
