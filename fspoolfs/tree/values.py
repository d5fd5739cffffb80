"""What control files take and print: numbers, words and verbs, each one way and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fspoolfs.errors import BusyError, InvalidError
from fspoolfs.names import one_line
from fspoolfs.service.jobs import Job

#: PID_MAX_LIMIT of include/linux/threads.h has no more.
_PID_DIGITS = 7


def words(data: bytes) -> list[str]:
    """The words of one request. Raises `InvalidError` for an empty one or one that is no text."""
    try:
        found = data.decode().split()
    except UnicodeDecodeError as error:
        raise InvalidError("what was written is not UTF-8 text") from error
    if not found or "\0" in data.decode():
        raise InvalidError("nothing was written; see the README for what this file takes")
    return found


def flag(data: bytes) -> bool:
    """0 or 1."""
    text = data.strip()
    if text not in (b"0", b"1"):
        raise InvalidError(f"expected 0 or 1, not {text.decode('utf-8', 'replace')!r}")
    return text == b"1"


def process_id(data: bytes) -> int:
    """The number of one process; 0 is who writes, as for the kernel's files of this name."""
    text = data.strip()
    if not text.isdigit() or len(text) > _PID_DIGITS:
        raise InvalidError(f"{text.decode('utf-8', 'replace')!r} is not the number of a process")
    return int(text)


Verb = Callable[[list[str]], Awaitable[None]]


async def run_verb(data: bytes, verbs: dict[str, Verb]) -> None:
    """Carry out the verb that was written, with the words behind it."""
    verb, *arguments = words(data)
    if verb not in verbs:
        raise InvalidError(f"there is no verb {verb!r}; there are {', '.join(sorted(verbs))}")
    await verbs[verb](arguments)


def no_arguments(verb: str, arguments: list[str]) -> None:
    if arguments:
        raise InvalidError(f"{verb} takes no argument, not {' '.join(arguments)!r}")


def one_of(verb: str, arguments: list[str], choices: tuple[str, ...]) -> str:
    """The single optional argument, empty when it was left out."""
    if len(arguments) > 1 or (arguments and arguments[0] not in choices):
        raise InvalidError(f"{verb} takes {' or '.join(choices)}, not {' '.join(arguments)!r}")
    return arguments[0] if arguments else ""


def one_argument(verb: str, arguments: list[str], what: str) -> str:
    if len(arguments) != 1:
        raise InvalidError(f"{verb} takes one argument, {what}, not {' '.join(arguments)!r}")
    return arguments[0]


async def cancel(data: bytes, jobs: list[Job | None]) -> None:
    """What `job` takes: `cancel` stops the first job that is running."""
    if words(data) != ["cancel"]:
        raise InvalidError("the file job takes `cancel`")
    for job in jobs:
        if job is not None and job.running:
            job.progress.cancel()
            return
    raise BusyError("no job is running")


def status(state: str, *jobs: Job | None) -> str:
    """One word, and how far the running job is: "building 43%"."""
    for job in jobs:
        if job is not None and job.running:
            amount = job.amount()
            detail = f"{job.progress.phase} {amount}".strip()
            return f"{state} {detail}\n" if detail else f"{state}\n"
    return f"{state}\n"


def number(count: int | None) -> str:
    return "unknown\n" if count is None else f"{count}\n"


def sentence(error: Exception | None) -> str:
    """One line, whatever name the sentence is about."""
    return f"{one_line(str(error))}\n" if error is not None else ""
