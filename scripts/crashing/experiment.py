"""One operation: a whole run of it to compare with, and runs in which the daemon is killed."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from crashing import contract
from crashing.calls import Call
from crashing.errors import CrashtestError
from crashing.operations import Operation, Track
from crashing.seen import View, look, uuids
from crashing.tracer import Kill
from crashing.volumes import Made
from crashing.workplace import Workplace

#: The entries of pools' roots that `operations.PREPARATION` makes besides items.
_STRANGERS = frozenset({"found"})


class End(enum.Enum):
    """What became of an operation whose daemon was killed."""

    COMPLETED = "completed"
    PARTLY = "partly"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Point:
    """When the daemon is killed: at a change, or, without one, after everything returned success."""

    kill: Kill | None

    @property
    def name(self) -> str:
        if self.kill is None:
            return "returned"
        return f"{'after' if self.kill.after else 'before'}-{self.kill.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`end` is `None` where what is there is neither of the states it may be."""

    point: Point
    end: End | None
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Recording:
    """Whole runs: the views of each track's pool at the beginning and after each step.

    `live` are those of the daemon that did it, `restarted` those of one that was started after the
    other was stopped: what a crash has to leave.
    """

    calls: tuple[Call, ...]
    live: Mapping[str, Sequence[View]]
    restarted: Mapping[str, Sequence[View]]


class Experiment:
    """Prepares `operation` in `place` and records a whole run of it; `attempt` then kills."""

    def __init__(self, operation: Operation, place: Workplace) -> None:
        self._operation = operation
        self._place = place
        self._made: frozenset[Made] = frozenset()
        self._known = self._prepare()
        self._recording = self._record()

    @property
    def calls(self) -> Sequence[Call]:
        """The changes to storage of a whole run."""
        return self._recording.calls

    def points(self) -> list[Point]:
        """Before each change, after the last, and after success has been told."""
        count = len(self.calls)
        before = [Point(Kill(number)) for number in range(1, count + 1)]
        return [*before, *([Point(Kill(count, after=True))] if count else []), Point(None)]

    def attempt(self, point: Point, *, keep: Callable[[], None]) -> Result:
        """Run the operation, kill the daemon at `point`, start another one and look.

        `keep` is called between the crash and the start.
        """
        try:
            done, wrong = self._crash(point)
            keep()
            made = self._complete()
            end, after = self._after_crash(done)
            if not wrong and not after:
                after = self._remains(made)
        except (AssertionError, CrashtestError) as error:
            # A daemon that does not start, or a client that waits for ever.
            return Result(point=point, end=None, violations=(str(error),))
        finally:
            self._place.kill()
        return Result(point=point, end=end, violations=(*wrong, *after))

    def _complete(self) -> frozenset[Made]:
        volumes = self._place.volumes
        return volumes.complete() if volumes is not None else frozenset()

    def _remains(self, made: frozenset[Made]) -> list[str]:
        """What was `made` when the daemon was killed is there still, and goes when it is told to."""
        volumes = self._place.volumes
        if volumes is None:
            return []
        wrong = []
        if not self._operation.destroys and made - volumes.complete():
            wrong.append("a file system that had come to its end was made anew")
        if self._operation.clear:
            if not self._place.is_serving:
                self._start()
            self._place.must(self._operation.clear)
            wrong += volumes.leftovers()
        return wrong

    def _crash(self, point: Point) -> tuple[list[int], list[str]]:
        """How many steps of each track returned success, and what failed although nothing was killed."""
        self._begin()
        self._place.new_log()
        tracer = self._place.trace(point.kill)
        try:
            with ThreadPoolExecutor(len(self._operation.tracks)) as pool:
                done = list(pool.map(self._run, self._operation.tracks))
            self._place.kill()
            report = tracer.report()
        finally:
            tracer.close()
        wrong = [f"without a crash it failed: {line}" for _, line in done if line and not report.killed]
        if report.unguarded and self._place.volumes is not None:
            wrong.append(f"{report.unguarded} goes on, and nothing keeps the next daemon from the volume")
        return [count for count, _ in done], wrong

    # -- preparation ------------------------------------------------------------------------------

    def _prepare(self) -> frozenset[str]:
        """Save what every run begins with; the uuids that there are."""
        place, interrupted = self._place, self._operation.interrupted
        place.start()
        place.must(self._operation.preparation + self._operation.prepare)
        known = uuids(place.mount)
        if interrupted is None:
            place.daemon.stop()
        else:
            tracer = place.trace(Kill(interrupted.at))
            try:
                place.do(interrupted.line)
                place.kill()
                if not tracer.report().killed:
                    raise CrashtestError(f"{interrupted.line} makes fewer than {interrupted.at} changes")
            finally:
                tracer.close()
            place.boot()
        place.save()
        self._made = self._complete()
        return known

    def _record(self) -> _Recording:
        self._begin()
        tracer = self._place.trace()
        try:
            live = {track.pool: self._live_views(track) for track in self._operation.tracks}
            self._place.kill()
            calls = tracer.report().calls
        finally:
            tracer.close()
        restarted = {track.pool: self._restarted_views(track) for track in self._operation.tracks}
        if live != restarted and not self._operation.resumed:
            shown = [_difference(live[pool], restarted[pool]) for pool in live]
            raise CrashtestError("a clean restart changes what is shown:\n" + "\n".join(shown))
        return _Recording(calls, live, restarted)

    def _live_views(self, track: Track) -> list[View]:
        views = [self._look(track.pool)]
        for step in track.steps:
            self._place.must(step)
            # A step that ends the daemon shows nothing new.
            views.append(self._look(track.pool) if self._place.is_serving else views[-1])
        return views

    def _restarted_views(self, track: Track) -> list[View]:
        self._begin()
        # What was begun with had been stopped cleanly.
        views = [self._restarted_view(track) if self._operation.before else self._look(track.pool)]
        for step in track.steps:
            self._place.must(self._operation.before + step)
            views.append(self._restarted_view(track))
        self._place.kill()
        return views

    def _restarted_view(self, track: Track) -> View:
        if self._place.is_serving:
            self._place.daemon.stop()
        self._place.kill()
        self._start()
        return self._look(track.pool)

    def _begin(self) -> None:
        """Come to the moment at which the operation begins."""
        self._place.kill()
        self._place.begin_again()
        self._start()
        self._place.must(self._operation.before)

    def _start(self) -> None:
        self._place.start()
        contract.settle(self._place.mount)

    # -- a crash and what comes after -------------------------------------------------------------

    def _run(self, track: Track) -> tuple[int, str]:
        """How many steps returned success, and what the next one said."""
        for count, step in enumerate(track.steps):
            done = self._place.do(step)
            if done.returncode:
                return count, f"{step}: {done.stderr.strip()}"
        return len(track.steps), ""

    def _after_crash(self, done: Sequence[int]) -> tuple[End | None, list[str]]:
        tracks = self._operation.tracks
        self._start()
        reached = [self._reached(track, count) for track, count in zip(tracks, done, strict=True)]
        wrong = [sentence for step, sentence in reached if step is None]
        wrong += self._contract()
        if not wrong:
            wrong += self._finish([step or 0 for step, _ in reached])
        steps = [step for step, _ in reached]
        if None in steps:
            return None, wrong
        if all(step == len(track.steps) for step, track in zip(steps, tracks, strict=True)):
            return End.COMPLETED, wrong
        return End.PARTLY if any(steps) else End.UNDONE, wrong

    def _reached(self, track: Track, done: int) -> tuple[int | None, str]:
        """How many steps of the track have happened: those that returned success, or one more."""
        views = self._recording.restarted[track.pool]
        now = self._look(track.pool)
        for step in (done + 1, done):
            if step < len(views) and now == views[step]:
                return step, ""
        if self._operation.formats and replace(now, volume=views[done].volume) == views[done]:
            return done, ""  # half of it, or the target is missing
        return None, (
            f"pool {track.pool}, of which {done} steps had returned success, is neither before nor after the "
            f"next one:\n{_difference(views[done : done + 1], [now])}"
        )

    def _finish(self, reached: Sequence[int]) -> list[str]:
        """What did not happen can be done now; the end is then that of a run without a crash."""
        rests = [
            replace(track, steps=track.steps[step:])
            for track, step in zip(self._operation.tracks, reached, strict=True)
            if step < len(track.steps)
        ]
        if rests:
            self._place.must(self._operation.before)
        for rest in rests:
            _, line = self._run(rest)
            if line:
                return [f"what the crash undid cannot be done: {line}"]
            if self._place.is_serving:
                last, now = self._recording.live[rest.pool][-1], self._look(rest.pool)
                if now != last:
                    return [f"what the crash undid comes out otherwise:\n{_difference([last], [now])}"]
        return self._contract() if self._place.is_serving else []

    def _look(self, pool: str) -> View:
        """Where a crash had left something to be finished, only an active pool's storage is settled."""
        view = look(self._place.mount, self._place.storage, pool, self._known, self._made)
        return view if view.active or self._operation.interrupted is None else replace(view, found=())

    def _contract(self) -> list[str]:
        place = self._place
        return contract.violations(place.mount, place.state, _STRANGERS, place.new_log(), place.volumes)


def _difference(before: Sequence[View], after: Sequence[View]) -> str:
    """The lines that differ."""
    old, new = ("\n".join(line for view in views for line in view.lines) for views in (before, after))
    return "\n".join(
        line
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    )
