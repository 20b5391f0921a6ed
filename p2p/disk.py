"""The only door to files. Services get a Disk from the loop, so a simulator can give them one in memory.

Rules that hold here, so that no caller has to remember them:

- A file is never half there under its own name: `write_atomic` writes beside it, syncs, and replaces.
- Nothing is overwritten by accident and no link is followed: files are made with O_EXCL, opened with O_NOFOLLOW.
  A Disk made by `below(folder)` takes paths relative to that folder ("a/b", always with "/") and goes down one
  component at a time by descriptor (openat), so that a folder which somebody swaps for a link in that very moment
  is refused too. Checking a path first and opening it then is a race that the swapper wins.
- Opening never waits: a FIFO where a file was expected is refused, not opened and hung on.
- A mode is what was asked for, whatever the umask.
- OSError ends here. What the caller sees is a UserError: one line with what, why and what to do.

All of it blocks, so it runs in worker threads (`loop.work`), except for a few small files at the start.
No method keeps a descriptor open between two calls, hence nothing is shared and nothing needs a lock.
"""

import errno
import os
import stat
from contextlib import contextmanager

from .errors import UserError

BLOCK = 1 << 20             # bytes read at once; one BLOCK message, and large enough that the system call is free
LEFTOVER = ".p2ptmp"        # ends the names of files that write_atomic has not put in place yet

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FLAGS = _NOFOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FOLDER = _NOFOLLOW | getattr(os, "O_DIRECTORY", 0)
_BY_DESCRIPTOR = os.open in os.supports_dir_fd and os.listdir in os.supports_fd

_WHY = {
    errno.ENOENT: ("missing", "it, or a folder on the way to it, is not there", "check the path"),
    errno.ENOTDIR: ("link", "a part of the path is a file or a link", "use a real folder"),
    errno.ELOOP: ("link", "it is a link", "use what the link points to"),
    errno.EEXIST: ("exists", "it is there already", "remove it or take another name"),
    errno.EISDIR: ("kind", "it is a folder", "name a file"),
    errno.ENOSPC: ("no-space", "the disk is full", "free some space and try again"),
    errno.EDQUOT: ("no-space", "this user's disk quota is used up", "free some space and try again"),
    errno.EFBIG: ("no-space", "it is larger than this user may write", "raise the limit (ulimit -f)"),
    errno.EROFS: ("read-only", "the file system is read-only", "choose a writable folder with --home"),
    errno.EACCES: ("not-permitted", "this user is not permitted to", "check the owner and mode of it and its folder"),
    errno.EPERM: ("not-permitted", "this user is not permitted to", "check the owner and mode of it and its folder"),
    errno.ENAMETOOLONG: ("too-long", "the path is too long here", "use a shorter --home or shorter names"),
    errno.EMFILE: ("no-descriptors", "too many files are open", "raise the limit (ulimit -n)"),
    errno.EIO: ("broken", "the disk reports an error", "check the disk"),
}


def explain(error: OSError, doing: str, path: str) -> UserError:
    """The one line for a person whose file could not be read, written and so on."""
    code, why, advice = _WHY.get(error.errno, ("failed", error.strerror or str(error), "see the system's log"))
    return UserError(f"cannot {doing} {path}: {why}; {advice}", code=code)


class Status:
    """What stands under a path, links not followed.

    kind: f file, d folder, l link, o anything else (device, socket, pipe). mode: permission bits. modified: ns, Unix.
    `stamp` is equal exactly as long as nobody wrote to it, replaced it or changed its mode.
    """

    __slots__ = ("kind", "size", "mode", "owner", "modified", "stamp")

    def __init__(self, kind, size, mode, owner, modified, stamp):
        self.kind = kind
        self.size = size
        self.mode = mode
        self.owner = owner
        self.modified = modified
        self.stamp = stamp

    @classmethod
    def of(cls, result):
        """From an os.stat_result."""
        kinds = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}
        kind = kinds.get(stat.S_IFMT(result.st_mode), "o")
        if getattr(result, "st_reparse_tag", 0):      # a junction on Windows says it is a folder
            kind = "l"
        stamp = (result.st_dev, result.st_ino, result.st_size, result.st_mtime_ns, result.st_ctime_ns)
        return cls(kind, result.st_size, stat.S_IMODE(result.st_mode), result.st_uid, result.st_mtime_ns, stamp)


class Disk:
    """Files by path; or, when made by `below`, by a path relative to a folder that no link leads out of."""

    def __init__(self, root=None):
        self._root = root

    def below(self, folder) -> "Disk":
        """A Disk for what lies under `folder`. Links in the way to `folder` itself are fine."""
        return type(self)(self._full(folder))

    # -- asking

    def exists(self, path) -> bool:
        """Is there anything, be it a broken link?"""
        return self.status(path) is not None

    def status(self, path):
        """Status, or None where nothing is."""
        try:
            with self._place("look at", path) as (name, folder):
                return Status.of(os.lstat(name, dir_fd=folder))
        except UserError as error:
            if error.code == "missing":
                return None
            raise

    def listdir(self, path) -> list:
        """Names in a folder, sorted."""
        with self._place("list", path) as (name, folder):
            if folder is None:
                return sorted(os.listdir(name))
            descriptor = os.open(name, os.O_RDONLY | _FOLDER, dir_fd=folder)
            try:
                return sorted(os.listdir(descriptor))
            finally:
                os.close(descriptor)

    def free_bytes(self, path) -> int:
        """Bytes that this user may still write to the file system of an existing path."""
        import shutil

        with self._place("measure the free space of", path):
            return shutil.disk_usage(self._full(path)).free

    # -- reading

    def read_bytes(self, path, limit: int) -> bytes:
        """A whole file of at most `limit` bytes. UserError code `missing` where it is not there."""
        with self._open("read", path) as descriptor:
            data = _read(descriptor, limit + 1)
        if len(data) > limit:
            raise UserError(f"cannot read {self._full(path)}: it has more than {limit} bytes; "
                            "it is not what was expected here, move it away", code="too-large")
        return data

    def read_at(self, path, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer at the end of the file."""
        with self._open("read", path) as descriptor:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return _read(descriptor, length)

    def blocks(self, path):
        """The contents, a block at a time. The caller bounds how many it takes: a file may grow while it is read."""
        with self._open("read", path) as descriptor:
            while True:
                block = os.read(descriptor, BLOCK)
                if not block:
                    return
                yield block

    # -- writing

    def write_atomic(self, path, data: bytes, mode=0o600):
        """Make or replace a file so that a crash leaves the old contents or the new, on the disk when this returns."""
        with self._place("write", path) as (name, folder):
            before, last = os.path.split(name)
            spare = os.path.join(before, f".{last}.{os.urandom(4).hex()}{LEFTOVER}")
            try:
                _create(spare, folder, data, mode, is_durable=True)
                os.replace(spare, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                _forget(spare, folder)
                raise
            _sync(before or ".", folder)

    def create(self, path, data=b"", mode=0o600):
        """A file that was not there. Not synced: see `sync_tree`."""
        with self._place("write", path) as (name, folder):
            _create(name, folder, data, mode, is_durable=False)

    def write_at(self, path, offset: int, data: bytes):
        """Into a file that is there."""
        with self._open("write", path, os.O_WRONLY) as descriptor:
            os.lseek(descriptor, offset, os.SEEK_SET)
            _write(descriptor, data)

    def append(self, path, data: bytes, mode=0o600) -> int:
        """Add to the end of a file, which is made where it is missing; its size afterwards."""
        with self._open("write", path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode) as descriptor:
            _write(descriptor, data)
            return os.fstat(descriptor).st_size

    def make_dir(self, path, mode=0o700, fresh=False):
        """A folder, with those it lies in. With `fresh`, it must not have been there."""
        if not fresh and self._is_folder(path):
            return
        before = os.path.dirname(os.fspath(path))
        if before and not self.exists(before):
            self.make_dir(before, mode)
        with self._place("make", path) as (name, folder):
            try:
                os.mkdir(name, mode, dir_fd=folder)
            except FileExistsError:      # another thread was faster
                if fresh or not self._is_folder(path):
                    raise
                return
            if _BY_DESCRIPTOR:
                _set_mode(name, folder, mode)

    def rename(self, source, target):
        """Move, replacing a file (or an empty folder). `sync` the target's folder where it must survive a power cut."""
        with self._place("move", source) as (old, there), self._place("move to", target) as (new, here):
            os.replace(old, new, src_dir_fd=there, dst_dir_fd=here)

    def remove_tree(self, path):
        """Remove whatever is there; links are removed, not followed. Nothing there is fine."""
        if self._root is None:
            before, last = os.path.split(os.path.abspath(path))
            self.below(before).remove_tree(last)
            return
        found = self.status(path)
        if found is None:
            return
        if found.kind == "d":
            for name in self.listdir(path):
                self.remove_tree(f"{path}/{name}")
        with self._place("remove", path) as (name, folder):
            if os.name == "nt":
                os.chmod(name, 0o600)    # Windows keeps read-only files
            (os.rmdir if found.kind == "d" else os.unlink)(name, dir_fd=folder)

    def remove_leftovers(self, folder):
        """What `write_atomic` left behind when the power went; only while nobody else writes there."""
        for name in self.listdir(folder):
            if name.endswith(LEFTOVER):
                self.remove_tree(f"{os.fspath(folder)}/{name}")

    # -- making sure

    def sync(self, folder):
        """What was made, moved and removed in this folder is on the disk when this returns."""
        with self._place("sync", folder) as (name, descriptor):
            _sync(name, descriptor)

    def sync_tree(self, path):
        """All contents of a folder are on the disk when this returns: one call for the file system, not one a file."""
        with self._place("sync", path) as (name, folder):
            if _sync_filesystem(name, folder):
                return
        for name in self.listdir(path):
            inner = f"{os.fspath(path)}/{name}"
            if self.status(inner).kind == "d":
                self.sync_tree(inner)
            else:
                with self._open("sync", inner, os.O_RDWR) as descriptor:
                    os.fsync(descriptor)
        self.sync(path)

    # -- how

    def _is_folder(self, path):
        """A link to a folder counts where paths are the user's own."""
        found = self.status(path)
        return found is not None and (found.kind == "d" or self._root is None and os.path.isdir(path))

    def _full(self, path):
        path = os.fspath(path)
        return path if self._root is None else os.path.join(self._root, path)

    @contextmanager
    def _place(self, doing, path):
        """(name, dir_fd) that stand for `path`, with no link in between; OSErrors inside become UserErrors."""
        folder = None
        try:
            if self._root is None:
                yield os.fspath(path), None
            elif _BY_DESCRIPTOR:
                *between, last = _components(path)
                folder = os.open(self._root, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
                for name in between:
                    outer, folder = folder, os.open(name, os.O_RDONLY | _FOLDER, dir_fd=folder)
                    os.close(outer)
                yield last, folder
            else:
                yield _checked(self._root, _components(path)), None
        except OSError as error:
            raise explain(error, doing, self._full(path)) from error
        finally:
            if folder is not None:
                os.close(folder)

    @contextmanager
    def _open(self, doing, path, access=os.O_RDONLY, mode=0o600):
        """A descriptor of a regular file."""
        with self._place(doing, path) as (name, folder):
            descriptor = os.open(name, access | _FLAGS, mode, dir_fd=folder)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise UserError(f"cannot {doing} {self._full(path)}: it is not a file; name a regular file",
                                    code="kind")
                yield descriptor
            finally:
                os.close(descriptor)


def _components(path):
    """A relative path's parts. What comes from outside was checked long before (sync/manifest)."""
    parts = os.fspath(path).split("/")
    assert all(part not in ("", "..") and os.sep not in part for part in parts), f"not a relative path: {path!r}"
    return parts


def _checked(root, parts):
    """The full path where there is no openat (Windows): each part is looked at first."""
    path = root
    for part in parts[:-1]:
        path = os.path.join(path, part)
        if Status.of(os.lstat(path)).kind != "d":
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return os.path.join(path, parts[-1])


def _read(descriptor, length):
    parts = []
    while length > 0:
        part = os.read(descriptor, min(length, BLOCK))
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write(descriptor, data):
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest):]


def _create(name, folder, data, mode, is_durable):
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, mode, dir_fd=folder)
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, mode)      # the umask has taken bits away
        _write(descriptor, data)
        if is_durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget(name, folder):
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        pass      # it was never made; or it stays for remove_leftovers


def _set_mode(name, folder, mode):
    descriptor = os.open(name, os.O_RDONLY | _FOLDER, dir_fd=folder)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _sync(name, folder):
    if os.name == "nt":
        return               # folders cannot be opened there; NTFS journals names by itself
    descriptor = os.open(os.path.join(name, "."), os.O_RDONLY | _FOLDER, dir_fd=folder)     # "/.": --home may be a link
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_filesystem(name, folder):
    """Linux's syncfs. os.sync would also wait for every other disk, and for a network mount that has gone away."""
    import ctypes

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if os.name == "posix" else None
    if syncfs is None:
        return False
    descriptor = os.open(os.path.join(name, "."), os.O_RDONLY | _FOLDER, dir_fd=folder)
    try:
        if syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
    return True
