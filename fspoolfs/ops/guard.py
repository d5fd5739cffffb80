"""From an error to an errno, in one place; and the time after which a request is answered anyway."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from pyfuse3 import FUSEError

from fspoolfs.errors import FspoolError, StorageError, TimeLimitError
from fspoolfs.service.metrics import Metrics
from fspoolfs.tree.node import Directory

T = TypeVar("T")
#: Looking changes nothing and is asked for often.
_LEVELS = {"read": logging.DEBUG}
log = logging.getLogger("fspoolfs.requests")


class Guard:
    """Runs what requests ask for. `limit` is in seconds; a change goes on in the background."""

    def __init__(self, metrics: Metrics, *, limit: float) -> None:
        self._metrics = metrics
        self._limit = limit

    async def run(
        self,
        verb: str,
        directory: Directory,
        name: str,
        uid: int,
        work: Callable[[], Awaitable[T]],
        *,
        what: str = "",
    ) -> T:
        """Do `work` for `uid` in `directory`; `what` says more for the log.

        Raises `FUSEError` and nothing else but cancellation.
        """
        path = directory.path_of(name) if name else directory.path
        start = trio.current_time()
        try:
            if directory.bounded:
                result = await work()
            else:
                with trio.fail_after(self._limit):
                    result = await work()
        except Exception as error:
            raise self.refusal(verb, directory, path, uid, error) from error
        finally:
            self._metrics.observe(verb, trio.current_time() - start)
        log.log(_LEVELS.get(verb, logging.INFO), "%s %s uid=%d%s", verb, path, uid, what)
        return result

    def refusal(self, verb: str, directory: Directory, path: str, uid: int, error: Exception) -> FUSEError:
        """What the kernel gets for `error`; the object keeps the sentence, the log has it too."""
        if isinstance(error, FUSEError):
            return error
        known = _explain(verb, path, error)
        if known is None:
            log.exception("%s %s uid=%d: not foreseen", verb, path, uid)
            known = FspoolError(f"{verb} {path}: failed for a reason not foreseen; the log has it")
        elif known.errno != errno.EINPROGRESS:
            log.warning("%s %s uid=%d: %s", verb, path, uid, known.sentence)
        directory.note(known)
        self._metrics.failed(errno.errorcode.get(known.errno, str(known.errno)))
        return FUSEError(known.errno)


def _explain(verb: str, path: str, error: Exception) -> FspoolError | None:
    if isinstance(error, FspoolError):
        return error
    if isinstance(error, trio.TooSlowError):
        return TimeLimitError(f"{verb} {path}: the storage did not answer in time")
    if isinstance(error, OSError):
        return StorageError.from_os(f"{verb} {path}", error)
    return None
