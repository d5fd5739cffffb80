"""The errors of the virtual machine: a sentence for the person who runs it, and the exit status."""

from __future__ import annotations


class VmtestError(Exception):
    """The guest did not run the command to its end."""

    status = 125


class MissingError(VmtestError):
    """Something that this machine needs to run a guest is not installed."""

    status = 77


class TimeLimitError(VmtestError):
    """The command did not end in time."""

    status = 124


class EmulatorError(VmtestError):
    """qemu itself was killed, by the kernel for want of memory or by a fault of its own."""
