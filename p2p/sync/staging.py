"""One version on its way in: a fresh folder of our own (0700), in which nothing counts before its hash was seen.

    manifest       what it shall become
    parts/DIGEST   a content that is still arriving
    tree/          verified files under their final names and modes (644 and 755, nothing else)

A content is written under its hash, verified as a whole, and only then moved to its place. `commit` reads the finished
tree once more, with the scanner that sharing uses, and compares manifests: whatever happened to the folder meanwhile,
what is installed is exactly what was offered. One sync for the tree, then one rename (Store.install).

Verified files stay when a fetch is given up or the node dies; the next one for this application begins with them.
After a UserError (a full disk) a staging is good for `abort` or `discard` only.
"""

import hashlib
import threading

from ..errors import PeerError, UserError
from . import scan
from .manifest import EMPTY, missing

TAMPERED = ("path", "changed", "limit", "missing", "link")     # what scan says of a tree in which a stranger was busy


class Staging:
    """Made by Store.begin. Its methods may be called from several worker threads at once."""

    def __init__(self, store, disk, path, name, manifest):
        self.path = path
        self.name = name
        self.manifest = manifest
        self._store = store
        self._disk = disk
        self._lock = threading.RLock()
        self._is_over = False
        self._have = {EMPTY}          # digests that lie in the tree
        self._entries = {}            # digest -> entries
        for entry in manifest.files:
            self._entries.setdefault(entry.digest, []).append(entry)

    def prepare(self):
        """Make the folders and the empty files (called by Store.begin)."""
        self._disk.write_atomic(f"{self.path}/manifest", self.manifest.encode())
        self._disk.make_dir(f"{self.path}/parts", fresh=True)
        self._disk.make_dir(f"{self.path}/tree", 0o755, fresh=True)
        folders = {entry.path if entry.kind == "d" else entry.path.rpartition("/")[0] for entry in self.manifest.entries}
        for folder in sorted(folders - {""}):
            self._disk.make_dir(f"{self.path}/tree/{folder}", 0o755)
        for entry in self._entries.get(EMPTY, ()):
            self._create(entry, b"")

    def missing(self) -> list:
        """(digest, size) of each content that must be fetched, in the order of the manifest."""
        with self._lock:
            return missing(self.manifest, self._have)

    def write(self, digest: bytes, offset: int, data: bytes):
        """A piece of a missing content; pieces come in any order. PeerError for bytes that nobody asked for."""
        with self._lock:
            size = self._size(digest)
            if offset < 0 or offset + len(data) > size:
                raise PeerError(f"bytes {offset} to {offset + len(data)} of a file of {size}", "bytes")
            if len(data) == size:
                self._write_whole(digest, data)
                return
            part = self._part(digest)
            if not self._disk.exists(part):
                self._disk.create(part, mode=_mode(self._entries[digest][0]))
            self._disk.write_at(part, offset, data)

    def finish_file(self, digest: bytes) -> bool:
        """All of a content was written: was it the right one? If not, it is missing as before."""
        with self._lock:
            if digest in self._have:
                return True
            size, part = self._size(digest), self._part(digest)
            if not self._disk.exists(part):
                return False
            if scan.digest_of(self._disk, part, size) != digest:
                self._disk.remove_tree(part)
                return False
            first, *others = self._entries[digest]
            for entry in others:
                self._copy(part, entry)
            self._disk.rename(part, self._path(first))
            self._have.add(digest)
            return True

    def fill(self, disk, where):
        """Copy what is missing from `where`, {digest: path on `disk`}; each content is verified.

        Returns the first path whose file is not what it was, or None.
        """
        changed = None
        for digest, size in self.missing():
            path = where.get(digest)
            if path is not None and not self._take(disk, path, digest, size):
                changed = changed or path
        return changed

    def commit(self):
        """Verify all of it and install it. The version is here, whole, when this returns; before, it is not."""
        with self._lock:
            wanted = self.missing()
            assert not wanted and not self._is_over, f"{len(wanted)} contents are missing"
            tree = f"{self.path}/tree"
            if self._version_of(tree) != self.manifest.version:
                self.discard()
                raise UserError(f"{self.name}: somebody changed its files while they were being installed in "
                                f"{self._store.home}; nothing was installed, try again", code="changed")
            self._disk.sync_tree(tree)
            self._store.install(self, tree)
            self.discard()

    def abort(self):
        """Give up for now. What has been verified stays, for the next time."""
        with self._lock:
            self._is_over = True
            self._store.release(self)

    def discard(self):
        """Give up and leave nothing behind. Nothing happens after the end."""
        with self._lock:
            if not self._is_over:
                self._is_over = True
                try:
                    self._disk.remove_tree(self.path)
                finally:
                    self._store.release(self)

    # -- how

    def _version_of(self, tree):
        """The version that really lies there; None where it is not even a proper tree."""
        try:
            return scan.scan(self._disk, tree, exactly=True).version
        except UserError as error:
            if error.code in TAMPERED:
                return None
            raise

    def _take(self, disk, path, digest, size):
        """Is this content at `path`? Then it is ours now."""
        offset = 0
        try:
            for block in disk.blocks(path):
                self.write(digest, offset, block)
                offset += len(block)
                if offset == size:
                    return self.finish_file(digest)
        except PeerError:
            pass                      # the "peer" was this disk: the file has grown
        except UserError as error:
            if error.code not in scan.VANISHED:
                raise
        return False

    def _write_whole(self, digest, data):
        """A content in one piece needs no part: that halves the time for a tree of small files."""
        if hashlib.sha256(data).digest() == digest:
            for entry in self._entries[digest]:
                self._create(entry, data)
            self._have.add(digest)

    def _create(self, entry, data):
        self._disk.create(self._path(entry), data, _mode(entry))

    def _copy(self, source, entry):
        target, offset = self._path(entry), 0
        self._create(entry, b"")
        for block in self._disk.blocks(source):
            self._disk.write_at(target, offset, block)
            offset += len(block)

    def _size(self, digest):
        if self._is_over:
            raise UserError(f"{self.name}: this fetch was given up; start it again", code="closed")
        if digest not in self._entries or digest in self._have:
            raise PeerError("a content that nobody asked for", "bytes")
        return self._entries[digest][0].size

    def _part(self, digest):
        return f"{self.path}/parts/{digest.hex()}"

    def _path(self, entry):
        return f"{self.path}/tree/{entry.path}"


def _mode(entry):
    return 0o755 if entry.executable else 0o644
