"""One guest from its start to its end: two processes and a directory, all gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from vmtesting.errors import EmulatorError, TimeLimitError, VmtestError
from vmtesting.machine import Machine

#: Seconds for virtiofsd to listen, and for the last output to come through after the guest's end.
_PATIENCE = 10.0
_INTERVAL = 0.01
#: How much of what the kernel said is shown when the guest breaks, in characters.
_SHOWN = 4000

#: What costs time under emulation and is of no use there, and how a broken guest ends: by a reset.
_KERNEL_OPTIONS = (
    "console=ttyS0 loglevel=4 panic=-1 reboot=t tsc=reliable no_timer_check random.trust_cpu=on "
    "mitigations=off init_on_alloc=0 nokaslr audit=0 apparmor=0 nowatchdog rcupdate.rcu_expedited=1 "
    "cryptomgr.notests"
)
#: Without five page table levels, and without string instructions that emulation makes slow.
_PROCESSOR = "max,la57=off,-erms,-fsrm"
#: Bytes of the guest's disk.
_DISK_SIZE = 1 << 30


class Guest:
    """Files in `work` lead to and from the guest: its archive, its console, its status."""

    def __init__(
        self, machine: Machine, work: Path, *, memory: int, processors: int, network: bool = False
    ) -> None:
        self._machine = machine
        self._work = work
        self._memory = memory
        self._processors = processors
        self._network = network

    def run(self, archive: bytes, *, timeout: float) -> int:
        """The command's exit status; its output goes to standard output as it comes.

        Raises `TimeLimitError`, `EmulatorError` and `VmtestError`. Whatever happens, no process is left.
        """
        deadline = time.monotonic() + timeout
        (self._work / "archive").write_bytes(archive)
        with (self._work / "disk").open("wb") as disk:
            disk.truncate(_DISK_SIZE)
        with ExitStack() as processes:
            self._serve_files(processes)
            # Standard input is not used, but the guest's port is only open as long as it is.
            qemu = _start(processes, self._qemu(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert qemu.stdout is not None
            self._pass_on(qemu.stdout.fileno(), deadline, timeout)
            with suppress(subprocess.TimeoutExpired):
                qemu.wait(_PATIENCE)
        return self._status(qemu.returncode)

    def _serve_files(self, processes: ExitStack) -> None:
        """Start virtiofsd and return when it listens; it ends when qemu hangs up."""
        socket, log = self._work / "files", self._work / "files.log"
        options = "source=/,cache=always,sandbox=chroot,xattr,log_level=err"
        with log.open("wb") as file:
            server = _start(
                processes,
                (self._machine.virtiofsd, f"--socket-path={socket}", "-o", options),
                stderr=file,
            )
        deadline = time.monotonic() + _PATIENCE
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise VmtestError(f"virtiofsd does not listen: {log.read_text(errors='replace').strip()}")
            time.sleep(_INTERVAL)

    def _qemu(self) -> Sequence[str]:
        work, memory = self._work, f"{self._memory}M"
        return (
            *(self._machine.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "q35", "-cpu", _PROCESSOR, "-accel", "tcg,thread=multi,tb-size=512"),
            *("-smp", str(self._processors), "-m", memory),
            # virtiofsd works in the guest's own memory, which must be shared for that.
            *("-object", f"memory-backend-memfd,id=memory,size={memory},share=on"),
            *("-numa", "node,memdev=memory"),
            *("-chardev", f"socket,id=files,path={work / 'files'}"),
            *("-device", "vhost-user-fs-pci,chardev=files,tag=root,queue-size=1024"),
            *("-chardev", f"file,id=console,path={work / 'console'}", "-serial", "chardev:console"),
            *("-device", "virtio-serial-pci"),
            *("-chardev", "stdio,id=output,signal=off"),
            *("-device", "virtserialport,chardev=output,name=output"),
            *("-chardev", f"file,id=status,path={work / 'status'}"),
            *("-device", "virtserialport,chardev=status,name=status"),
            # For tests of what only a disk of its own can do; sparse, and gone with the guest.
            *("-drive", f"if=none,id=disk,format=raw,cache=unsafe,file={work / 'disk'}"),
            *("-device", "virtio-blk-pci,drive=disk"),
            *(("-nic", "user,model=virtio-net-pci") if self._network else ()),
            *("-kernel", str(self._machine.kernel), "-initrd", str(work / "archive")),
            *("-append", _KERNEL_OPTIONS),
        )

    def _pass_on(self, source: int, deadline: float, timeout: float) -> None:
        """Copy the command's output until qemu ends, or raise when it does not in time."""

        # The reading thread is this one: an alarm interrupts it at the deadline.
        def strike(number: int, frame: object) -> None:
            raise TimeLimitError(f"the guest did not end within {timeout:g} s{self._console()}")

        before = signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, max(_INTERVAL, deadline - time.monotonic()))
        try:
            while piece := os.read(source, 1 << 16):
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _status(self, qemu: int | None) -> int:
        try:
            return int((self._work / "status").read_text())
        except (FileNotFoundError, ValueError):
            if qemu is not None and qemu < 0:
                raise EmulatorError(f"qemu was killed by signal {-qemu}{self._console()}") from None
            message = f"the guest ended without a status, qemu with {qemu}{self._console()}"
            raise VmtestError(message) from None

    def _console(self) -> str:
        """What the guest's kernel said at last."""
        try:
            text = (self._work / "console").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return f"; its console:\n{text[-_SHOWN:].strip()}" if text.strip() else ""


def _start(
    processes: ExitStack,
    argv: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """A process in a session of its own, which ends with `processes`, and also when we are killed."""
    process = subprocess.Popen(
        ("setpriv", "--pdeathsig", "KILL", "--", *argv),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    processes.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    # The whole session: virtiofsd may have a child.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
