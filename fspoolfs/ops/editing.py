"""What editors do beside `config.xml`: temporary files, and renaming one of them into its place."""

from __future__ import annotations

import stat

from pyfuse3 import EntryAttributes, SetattrFields

from fspoolfs.errors import ImmutableError, InvalidError, NotFoundError
from fspoolfs.ops.inodes import Inodes
from fspoolfs.service.access import Caller
from fspoolfs.tree.node import Directory, File
from fspoolfs.tree.scratch import DOCUMENT, ScratchFile, ScratchSpace


class Editing:
    """The temporary files of a mounted tree, by directory."""

    def __init__(self, table: Inodes) -> None:
        self._space = ScratchSpace()
        self._inodes = table

    def find(self, directory: Directory, name: str) -> ScratchFile | None:
        if not directory.scratch:
            return None
        file = self._space.find(directory.number, name)
        if file is not None:
            self._inodes.remember_scratch(directory, file)
        return file

    def names(self, directory: Directory) -> list[str]:
        return self._space.names(directory.number) if directory.scratch else []

    def is_away(self, directory: Directory, name: str) -> bool:
        """Whether the document was removed a moment ago, by who is about to create it again."""
        return directory.scratch and name == DOCUMENT and self._space.is_away(directory.number)

    def restore(self, directory: Directory, name: str) -> tuple[int, File[Directory]] | None:
        """The document, when `name` is its name: it is created again, or was there all the time."""
        if not directory.scratch or name != DOCUMENT:
            return None
        self._space.bring_back(directory.number)
        position, row = directory.table[DOCUMENT]
        assert isinstance(row, File), "the document is a file in every table"
        return position, row

    def create(self, directory: Directory, name: str, *, mode: int, uid: int, gid: int) -> ScratchFile:
        if not directory.scratch:
            raise ImmutableError(f"{directory.path_of(name)}: no file can be made here")
        file = self._space.create(directory.number, name, mode=mode, uid=uid, gid=gid)
        self._inodes.remember_scratch(directory, file)
        return file

    def unlink(self, directory: Directory, name: str) -> None:
        """Temporary files go; a document is away for a moment and defines on; nothing else can."""
        if self.find(directory, name) is not None:
            self._space.remove(directory.number, name)
            return
        if name not in directory.names():
            raise NotFoundError(f"{directory.path}: there is no {name}")
        if not directory.scratch or name != DOCUMENT:
            raise ImmutableError(f"{directory.path_of(name)} cannot be removed")
        self._space.take_away(directory.number)

    async def rename(self, source: Directory, old: str, target: Directory, new: str, caller: Caller) -> None:
        """Onto another temporary name, or onto the document: then its content is the definition."""
        if target.number != source.number:
            raise ImmutableError(f"{source.path}/{old} cannot leave its directory")
        file = self.find(source, old)
        if file is None:
            raise NotFoundError(f"{source.path}: there is no {old}")
        if new != DOCUMENT:
            self._space.rename(source.number, old, new)
            return
        row = source.table[DOCUMENT][1]
        assert isinstance(row, File), "the document is a file in every table"
        assert row.store is not None, "the document takes definitions"
        if not file.data.strip():
            raise InvalidError(f"{source.path}/{old} is empty and defines nothing")
        await row.store(source, bytes(file.data), caller)
        self._space.remove(source.number, old)
        self._space.bring_back(source.number)
        self._inodes.become(file, (source, row))

    def set_attributes(self, file: ScratchFile, attr: EntryAttributes, fields: SetattrFields) -> None:
        if fields.update_size:
            file.truncate(attr.st_size)
        if fields.update_mode:
            file.mode = stat.S_IMODE(attr.st_mode)
        if fields.update_uid:
            file.uid = attr.st_uid
        if fields.update_gid:
            file.gid = attr.st_gid
