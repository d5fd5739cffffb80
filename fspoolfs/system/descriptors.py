"""A descriptor that can be given up while other threads use its number, and how many there may be."""

from __future__ import annotations

import os
import resource

#: As many as 6,000 pools need that several hosts share. Not all that may be had: some programs go through
#: every number up to their limit when they start.
MOST = 1 << 16


class Descriptor:
    """Owns one descriptor; `retire` releases the file at once, the number only with the object.

    Closing a number that another thread is about to use would lead that thread to whatever is
    opened next. A retired number leads to /dev/null instead, so a late `*at` call gets ENOTDIR,
    and since every user holds this object, the number is not given out again before the last of
    them is done.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def retire(self) -> None:
        """Let go of the file. Repeating it changes nothing."""
        nothing = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
        try:
            os.dup2(nothing, self.fd, inheritable=False)
        finally:
            os.close(nothing)

    def __del__(self) -> None:
        os.close(self.fd)


def raise_limit() -> None:
    """Let this process and its programs open as many files as they may, up to `MOST`.

    The usual limit (1,024) is for programs that use select(2), which those here do not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
