"""libvirt's daemon with nothing but its storage driver, apart from any other on the host."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.private import RUNTIME, private
from benchmarks.processes import Server

_START_LIMIT = 60.0
_DRIVER = "libvirt_driver_storage.so"
#: Beside its sockets, where libvirtd keeps definitions and caches.
_STATE = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")
_CONFIGURATION = """listen_tls = 0
listen_tcp = 0
unix_sock_dir = "{place}"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""


class Libvirtd(Server):
    """One that listens in the directory `place`; it forgets its pools with its end."""

    def __init__(self, place: Path) -> None:
        drivers = place / "drivers"
        drivers.mkdir(parents=True, exist_ok=True)
        link = drivers / _DRIVER
        link.unlink(missing_ok=True)
        link.symlink_to(_installed_driver())
        (place / "libvirtd.conf").write_text(_CONFIGURATION.format(place=place))
        self._socket = place / "libvirt-sock"
        self._socket.unlink(missing_ok=True)  # of one that was killed
        super().__init__(
            private(
                ("libvirtd", "--config", place / "libvirtd.conf", "--pid-file", place / "pid"),
                hidden=(*RUNTIME, *_STATE),
            ),
            log=place / "log",
            env={"LIBVIRT_DRIVER_DIR": os.fspath(drivers)},
            name="libvirtd",
        )

    @property
    def uri(self) -> str:
        """How clients name it."""
        return f"storage:///system?socket={self._socket}"

    def wait_until_usable(self) -> None:
        """Raises `BenchError` when it does not come up."""
        self.wait_until(self._socket.exists, what="its socket is there", seconds=_START_LIMIT)


@contextmanager
def running_libvirtd(place: Path) -> Iterator[Libvirtd]:
    with Libvirtd(place) as server:
        server.wait_until_usable()
        yield server


def _installed_driver() -> Path:
    libraries = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "")
    for directory in (libraries, Path("/usr/lib64")):
        driver = directory / "libvirt" / "connection-driver" / _DRIVER
        if driver.exists():
            return driver
    raise BenchError(f"{_DRIVER} is not where libvirt-daemon puts it")
