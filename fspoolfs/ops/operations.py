"""The FUSE handlers. Each finds its node, asks the tree, and answers; a few lines each."""

from __future__ import annotations

import errno
import itertools
import os
import select
import stat
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    PollHandle,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from fspoolfs.errors import FspoolError, ImmutableError, InvalidError
from fspoolfs.model.definitions import Permissions
from fspoolfs.ops import attributes
from fspoolfs.ops.editing import Editing
from fspoolfs.ops.guard import Guard
from fspoolfs.ops.handles import Handle, ScratchHandle, open_handle
from fspoolfs.ops.inodes import Inodes
from fspoolfs.ops.listing import Listing
from fspoolfs.ops.shield import shielded
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.tree.node import Directory, File, Link, Style
from fspoolfs.tree.root import Root
from fspoolfs.tree.scratch import ScratchFile

T = TypeVar("T")
#: The most bytes of a written value that the log shows.
_SHOWN = 64


def decode(name: bytes) -> str:
    """A name as the kernel hands it over; what is not UTF-8 carries surrogates and is refused later."""
    return name.decode("utf-8", "surrogateescape")


def caller_of(ctx: RequestContext) -> Caller:
    return Caller(
        uid=ctx.uid,
        gid=ctx.gid,
        pid=ctx.pid,
        groups=lambda: frozenset(pyfuse3.get_sup_groups(ctx.pid)),
    )


def _shown(handle: Handle, data: bytes) -> str:
    """A short value, such as a verb, for the log; documents are not shown."""
    if handle.file.style is Style.DOCUMENT:
        return ""
    return f" {data[:_SHOWN].strip().decode('utf-8', 'backslashreplace')!r}"


@shielded
class Operations(pyfuse3.Operations):
    """One mounted control tree."""

    enable_writeback_cache = False
    supports_dot_lookup = True
    enable_acl = False

    def __init__(self, service: Service, guard: Guard) -> None:
        super().__init__()
        self._service = service
        self._guard = guard
        self.inodes = Inodes(Root(service))
        self._editing = Editing(self.inodes)
        self._numbers = itertools.count(1)
        self._files: dict[FileHandleT, Handle | ScratchHandle] = {}
        self._listings: dict[FileHandleT, Listing] = {}
        #: Called when the kernel is there to be told of changes.
        self.on_connected: Callable[[], None] = lambda: None

    def init(self) -> None:
        self.on_connected()

    def open_handles(self) -> list[Handle]:
        """Every open file of the tree itself, for those who wake pollers."""
        return [handle for handle in self._files.values() if isinstance(handle, Handle)]

    # -- looking ----------------------------------------------------------------------------------

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        directory = self.inodes.directory(parent_inode)
        text = decode(name)
        if text in (".", ".."):
            return attributes.of_directory(directory if text == "." else directory.parent)
        scratch = self._editing.find(directory, text)
        if scratch is not None:
            return attributes.of_scratch(scratch)
        found = directory.find(text)
        if isinstance(found, Directory):
            self.inodes.remember(found)
            return attributes.of_directory(found)
        if self._editing.is_away(directory, text):
            raise FUSEError(errno.ENOENT)
        return attributes.of_row(directory, *found)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        found = self.inodes.find(inode)
        if isinstance(found, Directory):
            return attributes.of_directory(found)
        if isinstance(found, ScratchFile):
            return attributes.of_scratch(found)
        directory, row = found
        return attributes.of_row(directory, directory.table[row.name][0], row)

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        found = self.inodes.find(inode)
        if isinstance(found, tuple) and not isinstance(found[1], File):
            link: Link[Directory] = found[1]
            target = await link.ask(found[0]) if link.ask is not None else link.target(found[0])
            return FileNameT(target.encode("utf-8", "surrogateescape"))
        raise FUSEError(errno.EINVAL)

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        handle = FileHandleT(next(self._numbers))
        self._listings[handle] = Listing(self.inodes.directory(inode), self.inodes, self._editing)
        return handle

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        self._listings[fh].reply(start_id, token)

    async def releasedir(self, fh: FileHandleT) -> None:
        del self._listings[fh]

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Everything that was answered is durable."""

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """The tree itself has no size; each pool's is in its files."""
        data = StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_namemax = 255
        return data

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for inode, _ in inode_list:
            self.inodes.forgotten(inode)

    # -- files ------------------------------------------------------------------------------------

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        found = self.inodes.find(inode)
        if isinstance(found, ScratchFile):
            if flags & os.O_TRUNC:
                found.truncate(0)
            return self._opened(ScratchHandle(found))
        if isinstance(found, Directory) or not isinstance(found[1], File):
            raise FUSEError(errno.EISDIR if isinstance(found, Directory) else errno.ELOOP)
        return self._opened(self._open_file(found[0], found[1], flags, ctx))

    def _open_file(
        self, directory: Directory, file: File[Directory], flags: int, ctx: RequestContext
    ) -> Handle:
        if flags & os.O_ACCMODE != os.O_RDONLY and file.store is None:
            path = directory.path_of(file.name)
            raise self._guard.refusal(
                "open", directory, path, ctx.uid, ImmutableError(f"{path} is read-only")
            )
        return open_handle(directory, file, caller_of(ctx), self._service.events)

    def _opened(self, handle: Handle | ScratchHandle) -> FileInfo:
        number = FileHandleT(next(self._numbers))
        self._files[number] = handle
        # The content changes under the reader: the kernel keeps nothing of it.
        return FileInfo(fh=number, direct_io=True, keep_cache=False)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        handle = self._files[fh]
        if isinstance(handle, Handle) and handle.file.ask is not None:
            return await self._run("read", handle, partial(handle.read, off, size))
        return await handle.read(off, size)

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        handle = self._files[fh]
        if isinstance(handle, Handle):
            await self._run("write", handle, partial(handle.write, off, buf), what=_shown(handle, buf))
        else:
            await handle.write(off, buf)
        return len(buf)

    async def _run(self, verb: str, handle: Handle, work: Callable[[], Awaitable[T]], *, what: str = "") -> T:
        return await self._guard.run(
            verb, handle.directory, handle.file.name, handle.caller.uid, work, what=what
        )

    async def flush(self, fh: FileHandleT) -> None:
        handle = self._files[fh]
        try:
            handle.flush()
        except FspoolError as error:
            if isinstance(handle, Handle):
                path = handle.directory.path_of(handle.file.name)
                raise self._guard.refusal(
                    "flush", handle.directory, path, handle.caller.uid, error
                ) from error
            raise FUSEError(error.errno) from error

    async def release(self, fh: FileHandleT) -> None:
        handle = self._files.pop(fh)
        if isinstance(handle, ScratchHandle):
            handle.close()

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        """Everything that was answered is durable."""

    async def poll(
        self, inode: InodeT, fh: FileHandleT, poll_handle: PollHandle | None, ctx: RequestContext
    ) -> int:
        handle = self._files[fh]
        if not isinstance(handle, Handle):
            return select.POLLIN | select.POLLOUT
        return handle.poll(poll_handle)

    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        directory, text = self.inodes.directory(parent_inode), decode(name)
        document = self._editing.restore(directory, text)
        if document is not None:
            position, file = document
            handle = self._open_file(directory, file, flags, ctx)
            return self._opened(handle), attributes.of_row(directory, position, file)

        async def work() -> ScratchFile:
            return self._editing.create(directory, text, mode=stat.S_IMODE(mode), uid=ctx.uid, gid=ctx.gid)

        scratch = await self._guard.run("create", directory, text, ctx.uid, work)
        return self._opened(ScratchHandle(scratch)), attributes.of_scratch(scratch)

    # -- changing the tree ------------------------------------------------------------------------

    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        directory, text = self.inodes.directory(parent_inode), decode(name)
        made = await self._guard.run(
            "mkdir", directory, text, ctx.uid, partial(directory.make, text, mode, caller_of(ctx))
        )
        self.inodes.remember(made)
        return attributes.of_directory(made)

    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        directory, text = self.inodes.directory(parent_inode), decode(name)
        await self._guard.run(
            "rmdir", directory, text, ctx.uid, partial(directory.remove, text, caller_of(ctx))
        )

    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        directory, text = self.inodes.directory(parent_inode), decode(name)

        async def work() -> None:
            self._editing.unlink(directory, text)

        await self._guard.run("unlink", directory, text, ctx.uid, work)

    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        source, old = self.inodes.directory(parent_inode_old), decode(name_old)
        target, new = self.inodes.directory(parent_inode_new), decode(name_new)
        caller = caller_of(ctx)

        async def work() -> None:
            if flags & pyfuse3.RENAME_EXCHANGE:
                raise InvalidError(f"{source.path}/{old}: nothing here can be exchanged")
            if self._editing.find(source, old) is not None:
                await self._editing.rename(source, old, target, new, caller)
            else:
                await source.rename(old, target, new, caller)

        await self._guard.run("rename", source, old, ctx.uid, work, what=f" to {target.path_of(new)}")

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        found = self.inodes.find(inode)
        if isinstance(found, Directory):
            await self._set_directory(found, attr, fields, ctx)
        elif isinstance(found, ScratchFile):
            self._editing.set_attributes(found, attr, fields)
        else:
            self._check_file_change(found[0], found[1].name, found[1], fields, ctx)
        return await self.getattr(inode, ctx)

    async def _set_directory(
        self, directory: Directory, attr: EntryAttributes, fields: SetattrFields, ctx: RequestContext
    ) -> None:
        permissions = Permissions(
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            owner=attr.st_uid if fields.update_uid else None,
            group=attr.st_gid if fields.update_gid else None,
        )
        if permissions != Permissions():
            work = partial(directory.set_permissions, permissions, caller_of(ctx))
            await self._guard.run("setattr", directory, "", ctx.uid, work)

    def _check_file_change(
        self, directory: Directory, name: str, row: object, fields: SetattrFields, ctx: RequestContext
    ) -> None:
        """Truncation and times are taken and mean nothing; so are owner and mode of a document.

        `cp -a` and editors set them on what they have just written.
        """
        if isinstance(row, File) and row.style is Style.DOCUMENT:
            return
        if fields.update_mode or fields.update_uid or fields.update_gid:
            path = directory.path_of(name)
            error = ImmutableError(f"{path}: owner and mode of control files cannot be set")
            raise self._guard.refusal("setattr", directory, path, ctx.uid, error)

    # -- what there is none of --------------------------------------------------------------------

    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        raise self._refuse("mknod", parent_inode, name, ctx)

    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        raise self._refuse("symlink", parent_inode, name, ctx)

    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        raise self._refuse("link", new_parent_inode, new_name, ctx)

    def _refuse(self, verb: str, parent: InodeT, name: FileNameT, ctx: RequestContext) -> FUSEError:
        directory = self.inodes.directory(parent)
        path = directory.path_of(decode(name))
        error = ImmutableError(f"{path}: {verb} is not done in the control tree")
        return self._guard.refusal(verb, directory, path, ctx.uid, error)

    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """There are none; ENOSYS makes the kernel stop asking for the life of the mount."""
        raise FUSEError(errno.ENOSYS)

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        raise FUSEError(errno.ENOSYS)
