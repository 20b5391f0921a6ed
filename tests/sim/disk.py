"""Files in memory, with the interface of p2p/disk.py.

A computer's files outlive its processes. A process that is dead writes nothing any more, and a crash can be ordered
for the n-th write from now, so that a node dies in the middle of installing, renaming, remembering. What was written
is there afterwards: which writes a power cut takes away is the business of tests/test_store_crash.py.
"""

import errno
import os
import posixpath

from p2p.disk import BLOCK, LEFTOVER, Status, explain
from p2p.errors import UserError

from .world import Killed

FREE = 1 << 30


class File:
    """A file ("f") or a folder ("d"): `data` is its bytes, or its names in order."""

    __slots__ = ("kind", "data", "mode", "modified", "number", "writes")

    def __init__(self, kind, mode, modified, number):
        self.kind = kind
        self.data = bytearray() if kind == "f" else {}
        self.mode = mode
        self.modified = modified
        self.number = number
        self.writes = 0


class Files:
    """All files of one computer."""

    def __init__(self, world):
        self.world = world
        self.root = File("d", 0o755, 0, 0)
        self.count = 0
        self.changes = 0             # grows with each change below a folder `apps` or `manifests`
        self.crash_in = None         # writes until the process that makes them dies
        self.is_full = False

    def opened_by(self, loop):
        """The disk as one process sees it."""
        return Disk(self, loop, "")


class Disk:
    """As p2p.disk.Disk."""

    def __init__(self, files, loop, root, opener=None):
        self._files = files
        self._loop = loop
        self._root = root
        self._opener = opener or self
        self.is_closed = False

    def below(self, folder):
        return Disk(self._files, self._loop, self._full(folder), self._opener)

    # -- asking

    def exists(self, path):
        return self._find(path) is not None

    def status(self, path):
        file = self._find(path)
        if file is None:
            return None
        size = len(file.data) if file.kind == "f" else 0
        return Status(file.kind, size, file.mode, os.geteuid(), file.modified, (file.number, size, file.writes, file.mode))

    def listdir(self, path):
        return sorted(self._folder("list", path).data)

    def free_bytes(self, path):
        return FREE

    # -- reading

    def read_bytes(self, path, limit):
        data = bytes(self._file("read", path).data)
        if len(data) > limit:
            raise UserError(f"cannot read {path}: it has more than {limit} bytes", code="too-large")
        return data

    def read_at(self, path, offset, length):
        return bytes(self._file("read", path).data[offset:offset + length])

    def blocks(self, path):
        offset = 0
        while True:
            block = self.read_at(path, offset, BLOCK)
            if not block:
                return
            yield block
            offset += len(block)

    # -- writing

    def write_atomic(self, path, data, mode=0o600):
        before, last = posixpath.split(self._full(path))
        spare = posixpath.join(before, f".{last}.{self._files.count}{LEFTOVER}")
        outside = Disk(self._files, self._loop, "", self._opener)
        outside.create(spare, data, mode)
        outside.rename(spare, self._full(path))

    def create(self, path, data=b"", mode=0o600):
        folder, name = self._place("write", path)
        if name in folder.data:
            raise explain(OSError(errno.EEXIST, "exists"), "write", path)
        self._changes("write", path, len(data))
        file = self._new("f", mode)
        file.data += data
        folder.data[name] = file

    def write_at(self, path, offset, data):
        file = self._file("write", path)
        self._changes("write", path, len(data))
        if len(file.data) < offset:
            file.data += bytes(offset - len(file.data))
        file.data[offset:offset + len(data)] = data
        self._touched(file)

    def append(self, path, data, mode=0o600):
        if not self.exists(path):
            self.create(path, b"", mode)
        file = self._file("write", path)
        self._changes("write", path, len(data))
        file.data += data
        self._touched(file)
        return len(file.data)

    def make_dir(self, path, mode=0o700, fresh=False):
        parts = self._full(path).strip("/").split("/")
        folder = self._files.root
        for at, part in enumerate(parts):
            known = folder.data.get(part)
            is_last = at == len(parts) - 1
            if known is None:
                self._changes("make", path, 0)
                known = folder.data[part] = self._new("d", mode)
            elif known.kind != "d" or is_last and fresh:
                raise explain(OSError(errno.EEXIST, "exists"), "make", path)
            folder = known

    def rename(self, source, target):
        folder, name = self._place("move", source)
        if name not in folder.data:
            raise explain(OSError(errno.ENOENT, "missing"), "move", source)
        there, new = self._place("move to", target)
        known = there.data.get(new)
        if known is not None and (known.kind == "d" and known.data or known.kind != folder.data[name].kind):
            raise explain(OSError(errno.ENOTEMPTY, "not empty"), "move to", target)
        self._changes("move", f"{self._full(source)} {self._full(target)}", 0)
        there.data[new] = folder.data.pop(name)

    def remove_tree(self, path):
        file = self._find(path)
        if file is None:
            return
        if file.kind == "d":
            for name in sorted(file.data):
                self.remove_tree(f"{os.fspath(path)}/{name}")
        folder, name = self._place("remove", path)
        self._changes("remove", path, 0)
        del folder.data[name]

    def remove_leftovers(self, folder):
        for name in self.listdir(folder):
            if name.endswith(LEFTOVER):
                self.remove_tree(f"{os.fspath(folder)}/{name}")

    def sync(self, folder):
        self._folder("sync", folder)

    def sync_tree(self, path):
        self._folder("sync", path)

    # -- how

    def _full(self, path):
        path = os.fspath(path)
        return posixpath.normpath(posixpath.join(self._root, path)) if self._root else posixpath.normpath(path)

    def _find(self, path):
        assert not self._opener.is_closed, "a dead process looks at its disk"
        file = self._files.root
        for part in self._full(path).split("/"):
            if part and part != ".":
                file = file.data.get(part) if file.kind == "d" else None
                if file is None:
                    return None
        return file

    def _file(self, doing, path):
        file = self._find(path)
        if file is None:
            raise explain(OSError(errno.ENOENT, "missing"), doing, path)
        if file.kind != "f":
            raise explain(OSError(errno.EISDIR, "a folder"), doing, path)
        return file

    def _folder(self, doing, path):
        file = self._find(path)
        if file is None or file.kind != "d":
            raise explain(OSError(errno.ENOENT if file is None else errno.ENOTDIR, "no folder"), doing, path)
        return file

    def _place(self, doing, path):
        before, name = posixpath.split(self._full(path))
        outside = Disk(self._files, self._loop, "", self._opener)
        return outside._folder(doing, before), name

    def _new(self, kind, mode):
        self._files.count += 1
        return File(kind, mode, int(self._loop.wall() * 1e9) if self._loop else 0, self._files.count)

    def _touched(self, file):
        file.writes += 1
        file.modified = int(self._loop.wall() * 1e9) if self._loop else 0

    def _changes(self, doing, path, size):
        """Something is about to change: may it?"""
        files = self._files
        if files.is_full and size:
            raise explain(OSError(errno.ENOSPC, "full"), doing, path)
        if files.crash_in is not None and self._loop is not None:
            files.crash_in -= 1
            if files.crash_in < 0:
                files.crash_in = None
                raise Killed
        full = self._full(path)
        if "/apps/" in full or "/manifests/" in full:
            files.changes += 1
