"""Installed applications on the disk. Below the node's home:

    apps/NAME/VERSION/     an installed version: a plain folder with exactly the shared files
    manifests/VERSION      its manifest, so that nothing foreign lies among its files
    staging/N.NAME/        what is being fetched (sync/staging)
    trash/N                what is being removed
    data/NAME/             the application's own folder, which outlives its versions

A version is there or it is not: it comes by one rename of a folder that was verified and synced, and goes by one
rename into the trash. So a crash at any moment leaves every other version whole, and this one whole or absent; what
else it left behind, `recover` finds by where it lies. Verified files of an unfinished fetch are kept and used again.

The contents of all installed versions are found by their hash: a new version copies from here what has not changed,
and a peer that asks for a block names the content, not a path. It can get nothing else from this disk.

All of it blocks and runs in worker threads. A lock guards the little that is shared: the index, the reservations, and
the moments in which folders get or lose their names.
"""

import os
import threading

from .. import limits
from ..errors import PeerError, UserError
from ..text import size
from . import scan
from .manifest import Manifest, app_name_fault, check_app_name, missing, places
from .staging import Staging

PER_FILE = 4096           # bytes that a file takes beyond its contents, about


class Store:
    """The installed versions of one node. `quota`: bytes of all of them together."""

    def __init__(self, home, disk, quota=limits.STORE_QUOTA):
        self.home = os.path.abspath(os.fspath(home))
        self._outside = disk
        self._disk = disk.below(self.home)
        self._quota = quota
        self._lock = threading.RLock()
        self._index = None          # content's SHA-256 -> path below home; made when first needed, never changed
        self._versions = {}         # content's SHA-256 -> the versions that have it; made with the index
        self._used = 0              # bytes of all installed versions, as of the index
        self._open = {}             # (name, version) -> Staging

    # -- what is here

    def names(self) -> list:
        """Names of the applications of which a version is installed."""
        return [name for name in self._list("apps") if self.installed(name)]

    def installed(self, name: str) -> list:
        """Versions (32 bytes each) of an application that are here, whole; the one installed last comes last."""
        if app_name_fault(name):
            return []
        found = []
        for text in self._list(f"apps/{name}"):
            status = self._disk.status(f"manifests/{text}") if _is_version(text) else None
            if status is not None:
                found.append((status.modified, text))
        return [bytes.fromhex(text) for _, text in sorted(found)]

    def is_installed(self, name: str, version: bytes) -> bool:
        """Is this very version here, whole?"""
        if app_name_fault(name):
            return False
        text = version.hex()
        return self._disk.exists(f"apps/{name}/{text}") and self._disk.exists(f"manifests/{text}")

    def holdings(self) -> list:
        """(name, version) of all that is installed, sorted."""
        return sorted((name, version) for name in self._list("apps") for version in self.installed(name))

    def folder(self, name: str, version: bytes) -> str:
        """The installed version's folder."""
        if not self.is_installed(name, version):
            raise UserError(f"{name} {version.hex()[:8]} is not installed; `sync {name}` fetches it", code="missing")
        return os.path.join(self.home, "apps", name, version.hex())

    def data_folder(self, name: str) -> str:
        """The application's working directory, made if it is not there."""
        check_app_name(name)
        self._disk.make_dir(f"data/{name}")
        return os.path.join(self.home, "data", name)

    def manifest(self, version: bytes):
        """The Manifest of an installed version, or None where it is not here."""
        if not self._disk.exists(f"manifests/{version.hex()}"):
            return None
        data = self._disk.read_bytes(f"manifests/{version.hex()}", limits.MAX_MANIFEST)
        try:
            manifest = Manifest.decode(data)
        except PeerError:
            manifest = None
        if manifest is None or manifest.version != version:
            raise UserError(f"the manifest of {version.hex()[:8]} has been damaged on the disk; "
                            "remove this version and sync again", code="damaged")
        return manifest

    def read_block(self, digest: bytes, offset: int, length: int, may_show=lambda version: True):
        """Up to `length` bytes of an installed file, named by its content; None where it is not here, or in no version that `may_show`.

        Not verified: the receiver does that. PeerError for more than one block.
        """
        if length > limits.MAX_BLOCK:
            raise PeerError(f"asks for {length} bytes where {limits.MAX_BLOCK} are allowed", "limit")
        for _ in range(2):
            path = self.contents().get(digest)
            if path is None or not any(may_show(version) for version in self._versions.get(digest, ())):
                return None
            try:
                return self._disk.read_at(path, min(offset, limits.MAX_APP_BYTES), length)
            except UserError as error:
                if error.code != "missing":
                    raise             # else removed in this moment; the content may lie in another version too
        return None

    def missing_bytes(self, manifest: Manifest) -> int:
        """How much of a version would have to be fetched."""
        return sum(size for _, size in missing(manifest, self.contents()))

    def contents(self) -> dict:
        """{SHA-256: path below home} of all installed files."""
        with self._lock:
            if self._index is None:
                index, versions, used = {}, {}, 0
                for name, version in self.holdings():
                    try:
                        manifest = self.manifest(version)
                    except UserError:
                        continue            # damaged: whoever wants that version is told, the others go on
                    used += manifest.bytes
                    here = places(manifest, f"apps/{name}/{version.hex()}/")
                    index.update(here)
                    for digest in here:
                        versions.setdefault(digest, []).append(version)
                self._index, self._versions, self._used = index, versions, used
            return self._index

    # -- sharing

    def scan(self, folder) -> Manifest:
        """The manifest that `install_folder` would install."""
        inner, outer = os.path.realpath(self.home), os.path.realpath(os.fspath(folder))
        if inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep):
            raise UserError(f"{folder}: this node's own state lies in it ({self.home}), with its keys; "
                            "share a folder that holds the application only", code="path")
        return scan.scan(self._outside, folder)

    def install_folder(self, folder, name: str) -> Manifest:
        """Install a snapshot of a folder: what `share` offers. The folder may change afterwards."""
        check_app_name(name)
        for _ in range(scan.TRIES):
            manifest = self.scan(folder)
            if not manifest.files:
                raise UserError(f"{folder}: no file in it; an application has at least a main.py", code="empty")
            if self.is_installed(name, manifest.version) and self.mend(name, manifest.version):
                return manifest
            staging = self.begin(name, manifest)
            try:
                changed = staging.fill(self._outside.below(folder), places(manifest))
                if not changed:
                    staging.commit()
                    return manifest
            finally:
                staging.discard()
        raise scan.Changed(folder, changed)

    # -- installing

    def begin(self, name: str, manifest: Manifest) -> Staging:
        """Start to install a version. What is on this disk already is copied at once; see Staging.missing.

        End it with commit, abort or discard. UserError where there is no room for all that the manifest says, before
        the first byte is fetched.
        """
        check_app_name(name)
        key = (name, manifest.version)
        with self._lock:
            self._check_name(name)
            if key in self._open:
                raise UserError(f"{name}: this version is being fetched already; wait for it", code="busy")
            self._check_room(name, manifest)
            leftovers = self._leftovers(name)
            staging = Staging(self, self._disk, self._fresh("staging", f".{name}"), name, manifest)
            self._open[key] = staging
        try:
            staging.prepare()
            staging.fill(self._disk, self.contents())
            for path, old in leftovers:
                staging.fill(self._disk, places(old, f"{path}/tree/"))
                self._disk.remove_tree(path)
        except BaseException:
            staging.discard()
            raise
        return staging

    def install(self, staging, tree: str):
        """Give a verified and synced folder its name (called by Staging.commit)."""
        name, version = staging.name, staging.manifest.version.hex()
        target = f"apps/{name}/{version}"
        with self._lock:
            if self.is_installed(name, staging.manifest.version):
                return
            if self._disk.exists(target):        # without a manifest: a stranger's doing, which would be believed now
                self._disk.rename(target, self._fresh("trash") + "/old")      # recover empties it
            self._disk.make_dir("manifests")
            self._disk.write_atomic(f"manifests/{version}", staging.manifest.encode())
            self._disk.make_dir(f"apps/{name}")
            self._disk.rename(tree, target)
            self._disk.sync(f"apps/{name}")
            self._disk.sync("apps")
            self._index = None

    def mend(self, name: str, version: bytes) -> bool:
        """Is an installed version still what was shared? Reads all of it: disks err, and programs write where they should not.

        If not, it is put together again from what this disk holds; where that is not enough, it goes, and can be fetched.
        """
        if self._is_whole(name, version):
            return True
        try:
            manifest = self.manifest(version)
        except UserError:
            self.remove(name, version)
            return False
        staging = self.begin(name, manifest)
        try:
            self.remove(name, version)
            if staging.missing():
                return False
            staging.commit()
            return True
        finally:
            staging.abort()          # what was whole of it need not be fetched

    def _is_whole(self, name, version):
        try:
            return scan.scan(self._disk, f"apps/{name}/{version.hex()}", exactly=True).version == version
        except UserError as error:
            if error.code in ("not-permitted", "no-descriptors", "broken"):
                raise               # this says nothing about its contents
            return False

    def release(self, staging):
        """This staging is over, one way or another (called by Staging)."""
        with self._lock:
            if self._open.get((staging.name, staging.manifest.version)) is staging:
                del self._open[staging.name, staging.manifest.version]

    # -- removing

    def remove(self, name: str, version: bytes):
        """Remove an installed version; nothing happens where it is not here. Its data folder stays."""
        text = version.hex()
        with self._lock:
            if not self.is_installed(name, version):
                return
            trash = self._fresh("trash")
            self._disk.rename(f"apps/{name}/{text}", f"{trash}/old")
            self._disk.sync(f"apps/{name}")
            self._index = None
            if not any(self._disk.exists(f"apps/{other}/{text}") for other in self._list("apps")):
                self._disk.remove_tree(f"manifests/{text}")
            if not self._list(f"apps/{name}"):
                self._disk.remove_tree(f"apps/{name}")
        self._disk.remove_tree(trash)

    def recover(self):
        """Clear away what a crash left behind. Once, at the start, while nobody else uses this home."""
        self._outside.make_dir(self.home)
        for place in ("apps", "manifests", "staging"):
            self._disk.make_dir(place)
        self._disk.sync(".")
        self._disk.remove_tree("trash")
        for path, name, manifest in self._stagings():
            if manifest is None or self.is_installed(name, manifest.version):
                self._disk.remove_tree(path)
            else:
                self._disk.remove_tree(f"{path}/parts")
        used = {version.hex() for name in self._list("apps") for version in self.installed(name)}
        for text in self._list("manifests"):
            if text not in used:
                self._disk.remove_tree(f"manifests/{text}")

    # -- how

    def _list(self, path):
        return self._disk.listdir(path) if self._disk.exists(path) else []

    def _check_name(self, name):
        """Two names that differ only in case are one folder on macOS and Windows."""
        for other in self._list("apps"):
            if other != name and other.lower() == name.lower():
                raise UserError(f"{name}: an application called {other} is here already, and names may not differ only "
                                f"in case; choose another with --as NAME, or remove {other}", code="name")

    def _check_room(self, name, manifest):
        """Room for all of it, next to what others have been promised."""
        promised = sum(_room(staging.manifest) for staging in self._open.values())
        free = self._disk.free_bytes(".") - limits.DISK_RESERVE - promised
        if _room(manifest) > free:
            kept = f"{size(limits.DISK_RESERVE)} always stay free"
            kept += f", {size(promised)} are promised to other fetches" if promised else ""
            raise UserError(f"{name} takes {size(_room(manifest))}, {size(max(free, 0))} can be used on the disk of {self.home} ({kept}): "
                            "free some space and try again", code="no-space")
        self.contents()
        if manifest.bytes + self._used + promised > self._quota:
            raise UserError(f"{name} has {size(manifest.bytes)}, and installed applications may have "
                            f"{size(self._quota)} together; stop the root and remove versions below {self.home}/apps", code="no-space")

    def _fresh(self, place, suffix=""):
        """A folder of our own that was not there."""
        self._disk.make_dir(place)
        with self._lock:
            taken = [text.partition(".")[0] for text in self._list(place)]
            number = 1 + max((int(text) for text in taken if text.isdigit()), default=0)
            path = f"{place}/{number}{suffix}"
            self._disk.make_dir(path, fresh=True)
        return path

    def _stagings(self):
        """(path, name, manifest or None) of all stagings on the disk."""
        for text in self._list("staging"):
            path, name = f"staging/{text}", text.partition(".")[2]
            try:
                manifest = Manifest.decode(self._disk.read_bytes(f"{path}/manifest", limits.MAX_MANIFEST))
            except (PeerError, UserError):
                manifest = None
            yield path, name, manifest

    def _leftovers(self, name):
        """Unfinished stagings of an application that nobody works on."""
        at_work = {staging.path for staging in self._open.values()}
        return [(path, manifest) for path, its_name, manifest in self._stagings()
                if its_name == name and manifest is not None and path not in at_work]


def _is_version(text):
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)


def _room(manifest):
    return manifest.bytes + PER_FILE * len(manifest.entries)
