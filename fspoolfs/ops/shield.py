"""Nothing that goes wrong in a handler ends the daemon: pyfuse3 stops for any error but its own."""

from __future__ import annotations

import errno
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import FUSEError

from fspoolfs.errors import FspoolError

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type[pyfuse3.Operations])
log = logging.getLogger(__name__)


def shielded(operations: C) -> C:
    """Wrap every handler of a class, so that it raises `FUSEError` and nothing else."""
    for name, handler in list(vars(operations).items()):
        if inspect.iscoroutinefunction(handler) and hasattr(pyfuse3.Operations, name):
            setattr(operations, name, _shield(handler))
    return operations


def _shield(handler: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    @functools.wraps(handler)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except FspoolError as error:
            raise FUSEError(error.errno) from error
        except Exception as error:
            log.exception("%s: not foreseen", handler.__name__)
            raise FUSEError(errno.EIO) from error

    return answer
