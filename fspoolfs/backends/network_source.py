"""Network pools: an export of another host or of a cluster, or a directory of this host, at the target.

How exports of one kind are mounted is an `Engine`'s business. Everything that may wait for a server is
bounded in time, and nothing is left mounted or running when it is given up. What is at the target is
looked at, never assumed: a daemon that was killed finds its mounts again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import ClassVar

from fspoolfs.backends import layout, network_abilities, network_mounts
from fspoolfs.backends import place as places
from fspoolfs.backends.network import exports
from fspoolfs.backends.network.engine import Engine
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import BuildMode, Sharing
from fspoolfs.backends.volume_mounts import busy
from fspoolfs.errors import (
    BusyError,
    FspoolError,
    InvalidError,
    NotEmptyError,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from fspoolfs.model.definitions import PoolDefinition, PoolType
from fspoolfs.model.infos import Feature, MountUse
from fspoolfs.progress import Progress
from fspoolfs.system import holders, mounts, remote
from fspoolfs.system.paths import HostRoot

#: The format that asks the hosts what they serve; it is also what no format at all means.
AUTO = "auto"


class NetworkSource:
    """`Source` for pools of type "network"; `local` mounts what has no host."""

    type: ClassVar[PoolType] = PoolType.NETWORK
    format: ClassVar[str] = ""

    def __init__(self, engines: Sequence[Engine], local: Engine) -> None:
        self._engines = {engine.name: engine for engine in engines}
        self._local = local

    # -- what there is ----------------------------------------------------------------------------

    def unusable(self) -> str:
        return "" if os.geteuid() == 0 else "only root mounts exports"

    def lacks(self, definition: PoolDefinition) -> bool:
        return definition.source.format not in (None, AUTO, *self._engines)

    def parts(self) -> Sequence[Feature]:
        return [
            Feature(name=f"network {one.name}", reason=self.unusable() or one.unusable())
            for one in self._engines.values()
        ]

    def check(self, definition: PoolDefinition) -> None:
        source, name = definition.source, definition.name
        places.usable(definition, network_mounts.place_of(definition))
        if definition.capacity is not None:
            raise UnsupportedError(
                f"pool {name}: an export has the capacity that its server gives it; leave <capacity> "
                "out, and "
                "limit items instead"
            )
        if not source.hosts and source.format not in (None, AUTO):
            raise InvalidError(
                f"pool {name}: format '{source.format}' needs a server and no <host> is named; name "
                "one, or leave "
                "the format out for a directory of this host"
            )
        if not source.hosts and source.auth is not None:
            raise InvalidError(
                f"pool {name}: <auth> is for a server and no <host> is named; name one, or leave <auth> out"
            )
        exports.check_hosts(definition)
        candidates = self._candidates(definition)
        if not candidates:
            assert source.auth is not None
            raise InvalidError(
                f"pool {name}: <auth> is of type '{source.auth.type}', which no format is called; write "
                "one of "
                f"{', '.join(self._engines)}"
            )
        if _is_open(definition):  # what one kind cannot do, another may
            exports.check_no_secrets(definition)
            return
        exports.check_options(definition, candidates[0].name, candidates[0].options)
        exports.check_auth(definition, candidates[0].name)
        candidates[0].check(definition)

    def _candidates(self, definition: PoolDefinition) -> Sequence[Engine]:
        """The engines that may serve a definition."""
        source = definition.source
        if not source.hosts:
            return (self._local,)
        if _is_open(definition):
            told = source.auth.type if source.auth is not None else None
            return tuple(engine for engine in self._engines.values() if told in (None, engine.name))
        return (self._engines[source.format or ""],)

    def _engine(self, definition: PoolDefinition) -> Engine:
        """The one that serves it: what is mounted already tells, or the hosts are asked."""
        candidates = self._candidates(definition)
        if not _is_open(definition):
            return candidates[0]
        found = self._mounted(definition)
        if found is not None:
            return found[0]
        usable = [engine for engine in candidates if not engine.unusable()]
        for engine in usable:
            if engine.answers(definition):
                chosen = replace(definition, source=replace(definition.source, format=engine.name))
                self.check(chosen)
                return engine
        asked = ", ".join(engine.name for engine in usable) or "none: no program for one is installed"
        raise FspoolError(
            f"pool {definition.name}: {exports.shown(definition)} does not tell what it serves (asked: "
            f"{asked}); "
            "look whether it is up, or name the format",
            errno=errno.ETIMEDOUT,
        )

    def _usable(self, definition: PoolDefinition) -> Engine:
        if reason := self.unusable():
            raise UnsupportedError(f"pool {definition.name} cannot be mounted: {reason}")
        engine = self._engine(definition)
        if reason := engine.unusable():
            raise UnsupportedError(f"pool {definition.name} cannot be mounted: {reason}")
        return engine

    def _mounted(
        self, definition: PoolDefinition, table: Sequence[mounts.Mount] | None = None
    ) -> tuple[Engine, mounts.Mount] | None:
        """The pool's own mount at its target, and whose it is; `table` is what is mounted."""
        table = mounts.mounts() if table is None else table
        found = mounts.mount_at(network_mounts.place_of(definition, table), table)
        for engine in self._candidates(definition) if found is not None else ():
            assert found is not None
            if network_mounts.is_own(definition, engine, found):
                return engine, found
        return None

    def sharing(self, definition: PoolDefinition) -> Sharing:
        engine = self._engine(definition)
        return Sharing(single=engine.single_host, fences=engine.fences)

    def identity(self, definition: PoolDefinition) -> str:
        if not _is_open(definition):
            return self._candidates(definition)[0].identity(definition)
        return f"network:{exports.shown(definition)}"

    # -- build and delete -------------------------------------------------------------------------

    def build(self, definition: PoolDefinition, mode: BuildMode, progress: Progress) -> None:
        """Make the target, and on the server the directory where it is missing."""
        progress.begin("building")
        if self._mounted(definition) is not None:
            return
        engine = self._usable(definition)
        try:
            with network_mounts.detached(definition, engine, progress):
                pass
        except NotFoundError:
            if engine is self._local:  # what is missing may not be mounted there yet
                raise
            self._make_exported(definition, engine, progress)
        places.make(definition)

    def _make_exported(self, definition: PoolDefinition, engine: Engine, progress: Progress) -> None:
        """From the closest directory above that can be mounted."""
        whole = exports.directory(definition)
        above, missing = os.path.split(whole)
        while above != "/" or missing:
            parent = replace(definition, source=replace(definition.source, directory=above))
            try:
                with network_mounts.detached(parent, engine, progress) as made:
                    network_mounts.within(
                        definition, partial(_make_below, made.tree, missing), seconds=engine.patience
                    )
                return
            except NotFoundError:
                if above == "/":
                    raise
                above, name = os.path.split(above)
                missing = f"{name}/{missing}"

    def delete(self, definition: PoolDefinition) -> None:
        """Remove fspoolfs' own files from an export that holds nothing else, and the target.

        The exported directory itself stays: it is the server's.
        """
        places.usable_place(definition)
        if self._mounted(definition) is not None:  # left by a crash
            self.detach(definition, force=False)
        engine = self._usable(definition)
        place = network_mounts.place_of(definition)
        if not os.path.lexists(place):
            return
        with network_mounts.detached(definition, engine, Progress()) as made:

            def remove() -> None:
                with closing(made.root(place)) as root:
                    places.refuse_leftovers(definition, root)
                    with suppress(FileNotFoundError):
                        places.refuse_hosts(definition, root)
                        root.remove_tree(layout.OWN, Progress())
                    root.sync()

            network_mounts.within(definition, remove, seconds=engine.patience)
        places.remove_empty(definition)

    # -- attach and detach ------------------------------------------------------------------------

    def attach(self, definition: PoolDefinition, progress: Progress) -> RootDirectory:
        place = network_mounts.place_of(definition)
        found = self._mounted(definition)
        if found is not None:
            root = self._taken_up(definition, place)
            if root is not None:
                return root
            # Its program has died, or the servers have put it out: nothing brings such a mount back.
            self._unmount(definition, place, force=True)
        engine = self._usable(definition)
        self._check_place(definition, place)
        with network_mounts.detached(definition, engine, progress) as made:
            network_mounts.within(
                definition, lambda: network_mounts.probe(definition, made), seconds=engine.patience
            )
            network_mounts.guard(place)
            try:
                return network_mounts.within(
                    definition, lambda: made.move(place), seconds=engine.patience, spoil=HostRoot.close
                )
            except BaseException:
                if not made.moved:
                    network_mounts.remove_guard(place)
                raise

    def _taken_up(self, definition: PoolDefinition, place: str) -> HostRoot | None:
        """The root of what is mounted at `place`; `None` where that is dead.

        Only a change tells: much of what is asked a client answers by itself.
        """
        try:
            root = network_mounts.within(definition, lambda: remote.open_root(place), spoil=HostRoot.close)
        except OSError as error:
            if error.errno not in network_mounts.DEAD:
                raise
            return None
        try:
            network_mounts.within(definition, lambda: network_mounts.probe_root(definition, root))
        except StorageError as error:
            if error.errno in network_mounts.DEAD:
                root.close()
                return None
        except BaseException:
            root.close()
            raise
        return root

    def _check_place(self, definition: PoolDefinition, place: str) -> None:
        """Raise `FspoolError` unless the target is an empty directory, or covered by a guard alone."""
        mounted = mounts.mount_at(place)
        if mounted is not None and mounted.source != network_mounts.GUARD:
            raise BusyError(
                f"pool {definition.name}: {mounted.source} is mounted at its target {place}; unmount it, "
                "or give the pool another target"
            )
        try:
            held = os.listdir(place)
        except FileNotFoundError:
            raise NotFoundError(
                f"pool {definition.name}: its target {place} does not exist; build the pool first"
            ) from None
        except NotADirectoryError:
            raise places.not_a_directory(definition, place) from None
        if held:
            raise NotEmptyError(
                f"pool {definition.name}: its target {place} holds files, which the export would hide; "
                "move them "
                "away, or give the pool another target"
            )

    def verify(self, definition: PoolDefinition, root: RootDirectory) -> None:
        if not isinstance(root, HostRoot):
            raise TypeError(f"{root!r} was not attached by this source")
        # All pools are looked at regularly: reading all mounts for each costs the square of their number.
        mounted = self._mounted(definition, mounts.recent())
        if mounted is None or mounted[1].mount_id != root.mount_id():
            raise FspoolError(
                f"pool {definition.name}: {exports.shown(definition)} is no longer mounted at {root.path}; "
                "nothing is written there meanwhile; start the pool again",
                errno=errno.ESTALE,
            )

    def ping(self, definition: PoolDefinition, root: RootDirectory) -> None:
        try:
            root.space()  # statfs(2), which no cache of the kernel's answers
            # Asked for ever: where no engine needs more than that, nothing is looked up for it.
            if not any(engine.told_by_server for engine in self._candidates(definition)):
                return
            found = self._mounted(definition, mounts.recent())
            if found is not None and found[0].told_by_server:
                os.getxattr(root.path, found[0].told_by_server)
        except OSError as error:
            if error.errno not in network_mounts.DEAD:
                raise
            raise FspoolError(
                f"pool {definition.name}: the program that mounts {exports.shown(definition)} at {root.path} "
                f"has ended ({os.strerror(error.errno or errno.ENOTCONN)}); start the pool again",
                errno=errno.ENOTCONN,
            ) from error

    def describe(self, definition: PoolDefinition, root: RootDirectory) -> Sequence[Feature]:
        found = self._mounted(definition)
        if found is None:
            return ()
        where = exports.shown(definition) if definition.source.hosts else exports.directory(definition)
        abilities = network_abilities.tried(found[0], root) if isinstance(root, HostRoot) else ()
        return (Feature(name="network", note=f"{found[0].name}, {where}"), *abilities)

    def engine_of(self, definition: PoolDefinition) -> Engine | None:
        """What has mounted the export that is at the target now."""
        found = self._mounted(definition)
        return found[0] if found is not None else None

    def holders(self, definition: PoolDefinition) -> Sequence[MountUse]:
        return holders.holders(network_mounts.place_of(definition))

    def detach(self, definition: PoolDefinition, *, force: bool) -> None:
        if os.geteuid() == 0:  # for others nothing can have been attached
            self._unmount(definition, network_mounts.place_of(definition), force=force)

    def _unmount(self, definition: PoolDefinition, place: str, *, force: bool) -> None:
        network_mounts.unmount(
            definition,
            self._candidates(definition),
            place,
            force=force,
            busy=lambda: busy(definition, place),
        )


def _is_open(definition: PoolDefinition) -> bool:
    """Whether the servers are to be asked what they serve."""
    return bool(definition.source.hosts) and definition.source.format in (None, AUTO)


def _make_below(tree: int, path: str) -> None:
    """Make a directory and what is missing above it, below the one that `tree` is."""
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        for name in path.split("/"):
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=here)
            there = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = there
    finally:
        os.close(here)
