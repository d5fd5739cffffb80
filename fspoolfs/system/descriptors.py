"""A descriptor that can be given up while other threads are still using its number."""

from __future__ import annotations

import os


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
