"""The errors of the domain: an errno and a sentence for a person.

Everything that fspoolfs refuses is a `FspoolError`. The errno is what the caller of the system
call gets, the sentence says what was refused, why, and what to do; it goes to `last_error` and to
the log. Turning one into a FUSE reply happens in `fspoolfs.ops` alone.
"""

from __future__ import annotations

import errno
import os


class FspoolError(Exception):
    """A refused or failed request.

    `errno` is a number of errno(3), `sentence` the full explanation for a person.
    """

    errno: int = errno.EIO

    def __init__(self, sentence: str, *, errno: int | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        if errno is not None:
            self.errno = errno

    def __str__(self) -> str:
        return self.sentence


class InvalidError(FspoolError):
    """EINVAL: a malformed or invalid document, value or verb."""

    errno = errno.EINVAL


class DocumentError(InvalidError):
    """EINVAL: a document that is malformed or does not follow the grammar; `line` counts from 1."""

    def __init__(self, sentence: str, *, line: int | None = None) -> None:
        super().__init__(sentence if line is None else f"line {line}: {sentence}")
        self.line = line


class NotFoundError(FspoolError):
    """ENOENT: no such pool, item, snapshot or directory."""

    errno = errno.ENOENT


class ExistsError(FspoolError):
    """EEXIST: the name, the uuid or the source is taken."""

    errno = errno.EEXIST


class BusyError(FspoolError):
    """EBUSY: in use, or in a state that does not allow the request."""

    errno = errno.EBUSY


class InactiveError(FspoolError):
    """ENOMEDIUM: the pool is not active."""

    errno = errno.ENOMEDIUM


class NotEmptyError(FspoolError):
    """ENOTEMPTY: something would be lost."""

    errno = errno.ENOTEMPTY


class ImmutableError(FspoolError):
    """EPERM: can never be changed, or is not done to this file."""

    errno = errno.EPERM


class AccessError(FspoolError):
    """EACCES: not for this user."""

    errno = errno.EACCES


class UnsupportedError(FspoolError):
    """EOPNOTSUPP: this storage cannot do it."""

    errno = errno.EOPNOTSUPP


class TooLargeError(FspoolError):
    """EFBIG: the document is larger than is ever accepted."""

    errno = errno.EFBIG


class QuotaError(FspoolError):
    """EDQUOT: more than a quota of the pool leaves."""

    errno = errno.EDQUOT


class TimeLimitError(FspoolError):
    """ETIMEDOUT: the storage did not answer in time."""

    errno = errno.ETIMEDOUT


class InProgressError(FspoolError):
    """EINPROGRESS: the request goes on as a job."""

    errno = errno.EINPROGRESS


class UnansweredError(InProgressError):
    """ETIMEDOUT: the request may still go on, but the storage has not answered anything for a while."""

    errno = errno.ETIMEDOUT


class CancelledError(FspoolError):
    """ECANCELED: the job was cancelled and undone."""

    errno = errno.ECANCELED


class StorageError(FspoolError):
    """What the storage answered: the errno of the system call that failed."""

    @classmethod
    def from_os(cls, what: str, error: OSError) -> StorageError:
        """Wrap `error`; `what` says what was being done, as in "create /tank/web"."""
        number = error.errno if error.errno else errno.EIO
        return cls(f"{what}: {os.strerror(number)}", errno=number)


class CorruptError(FspoolError):
    """EIO: a file of fspoolfs' own that cannot be understood."""

    errno = errno.EIO


class RollbackError(FspoolError):
    """EIO: an operation failed and its undoing failed too; a start of the pool repairs it."""

    errno = errno.EIO
