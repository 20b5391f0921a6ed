"""What an application consists of: paths, kinds, executable bits, sizes and content hashes. No times, no owners.

The SHA-256 of a manifest's encoding is the application's version, so the encoding is canonical: two equal trees give
equal bytes on every computer, and bytes that are not exactly what `encode` would have made are refused.
A folder stands in it only if it is empty; all others follow from the paths in them.

The same rules hold when sharing and when receiving (`path_fault`, `tree_fault`), so whatever one node can share, all
can write. They are the meeting point of what Linux, macOS and Windows can store: a component is made of letters,
digits and . _ + -, begins with a letter, digit or _, does not end with a dot, and is no device name of Windows
(CON, NUL.txt); no two paths differ only in case. So nothing can climb out (".."), hide (".name"), look like an option
("-rf") or stand for another file.

Encoding, little-endian: b"p2pm", format 1, count u32; for each entry, sorted by path: flags u8 (0 empty folder, 1 file,
3 executable file), length of the path u16, path; for files size u64 and SHA-256.

Pure: no file is touched here.
"""

import hashlib
import re
import struct
from collections import namedtuple

from .. import limits
from ..errors import PeerError, UserError

_HEAD = struct.Struct("<4sBI")
_ENTRY = struct.Struct("<BH")
_FILE = struct.Struct("<Q32s")
_MAGIC = b"p2pm"
_FORMAT = 1
_FOLDER, _PLAIN, _EXECUTABLE = 0, 1, 3

_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_DEVICES = frozenset(["CON", "PRN", "AUX", "NUL"] + [f"{stem}{n}" for stem in ("COM", "LPT") for n in range(1, 10)])
_LONGEST_COMPONENT = 255        # bytes; ext4, NTFS and APFS alike

NO_DIGEST = bytes(32)
EMPTY = hashlib.sha256(b"").digest()

Entry = namedtuple("Entry", "path kind executable size digest")
Entry.__doc__ = "A file (kind 'f') or an empty folder (kind 'd': size 0, NO_DIGEST). The path is relative, with '/'."

Changes = namedtuple("Changes", "added changed removed")
Changes.__doc__ = "Sorted paths of the files in which two versions differ."


class Manifest:
    """The entries of one version, sorted by path; `files`: those that are files; `bytes`: the sum of their sizes.

    Whoever makes one has asked `tree_fault` about the entries.
    """

    def __init__(self, entries):
        self.entries = sorted(entries)
        self.files = [entry for entry in self.entries if entry.kind == "f"]
        self.bytes = sum(entry.size for entry in self.entries)
        self._version = None

    @property
    def version(self) -> bytes:
        """32 bytes: the SHA-256 of the encoding."""
        if self._version is None:
            self._version = hashlib.sha256(self.encode()).digest()
        return self._version

    def encode(self) -> bytes:
        """The canonical bytes."""
        parts = [_HEAD.pack(_MAGIC, _FORMAT, len(self.entries))]
        for path, kind, executable, size, digest in self.entries:
            flags = _FOLDER if kind == "d" else _EXECUTABLE if executable else _PLAIN
            parts += _ENTRY.pack(flags, len(path)), path.encode("ascii")
            if kind == "f":
                parts.append(_FILE.pack(size, digest))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """A manifest from a peer's bytes. Raises PeerError unless they are exactly what a well-behaved node makes."""
        if len(data) > limits.MAX_MANIFEST:
            raise PeerError(f"a manifest of {len(data)} bytes where {limits.MAX_MANIFEST} are allowed", "limit")
        try:
            entries = list(_entries(data))
        except (struct.error, UnicodeDecodeError):
            raise PeerError("a manifest that is cut off or garbled", "malformed")
        fault = tree_fault(entries)
        if fault:
            raise PeerError(f"a manifest with a bad path: {fault[0]!r}: {fault[1]}", "path")
        _check_sizes(entries)
        return cls(entries)


def _entries(data):
    magic, form, count = _HEAD.unpack_from(data)
    if (magic, form) != (_MAGIC, _FORMAT):
        raise PeerError("a manifest of an unknown format", "malformed")
    if count > limits.MAX_FILES:
        raise PeerError(f"a manifest of {count} files where {limits.MAX_FILES} are allowed", "limit")
    at, last = _HEAD.size, ""
    for _ in range(count):
        flags, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        path = data[at:at + length].decode("ascii")
        at += length
        if flags not in (_FOLDER, _PLAIN, _EXECUTABLE) or path <= last or len(path) != length:
            raise PeerError("a manifest that is not in canonical form", "malformed")
        size, digest = 0, NO_DIGEST
        if flags:
            size, digest = _FILE.unpack_from(data, at)
            at += _FILE.size
        yield Entry(path, "f" if flags else "d", flags == _EXECUTABLE, size, digest)
        last = path
    if at != len(data):
        raise PeerError("a manifest with bytes behind its end", "malformed")


def _check_sizes(entries):
    """Sizes are bounded in all before anything is reserved or fetched for them."""
    sizes = {}
    total = 0
    for entry in entries:
        total += entry.size
        if entry.kind == "d":
            continue
        if sizes.setdefault(entry.digest, entry.size) != entry.size or (entry.size == 0) != (entry.digest == EMPTY):
            raise PeerError(f"a manifest that gives one content two sizes: {entry.path}", "malformed")
    if total > limits.MAX_APP_BYTES:
        raise PeerError(f"a manifest of {total} bytes of files where {limits.MAX_APP_BYTES} are allowed", "limit")


def component_fault(name: str) -> str:
    """What is wrong with one component of a path; "" where nothing is."""
    if not _COMPONENT.fullmatch(name):
        return "a name may hold letters A-Z a-z, digits and . _ + - and begins with a letter, a digit or _"
    if name.endswith("."):
        return "a name may not end with a dot (Windows drops it)"
    if name.split(".")[0].upper() in _DEVICES:
        return "Windows keeps this name for a device"
    if len(name) > _LONGEST_COMPONENT:
        return f"a name may have {_LONGEST_COMPONENT} characters at most"
    return ""


def path_fault(path: str) -> str:
    """What is wrong with a relative path; "" where nothing is."""
    if len(path) > limits.MAX_PATH:
        return f"a path may have {limits.MAX_PATH} characters at most"
    parts = path.split("/")
    if len(parts) > limits.MAX_DEPTH:
        return f"folders may lie {limits.MAX_DEPTH} deep at most"
    for part in parts:
        fault = component_fault(part)
        if fault:
            return fault
    return ""


def tree_fault(entries):
    """(path, what is wrong) of the first path that cannot stand beside the others, or None."""
    kinds = {}            # each path and each folder above it -> "f", "d" or "" for a folder that holds something
    names = {}            # the same in lower case -> as it is written
    for entry in sorted(entries):
        fault = path_fault(entry.path)
        if fault:
            return entry.path, fault
        if entry.path in kinds:
            return entry.path, "it is there twice, or both a file and a folder"
        at = entry.path.find("/")
        while at >= 0:
            above = entry.path[:at]
            if kinds.setdefault(above, ""):
                return entry.path, f"{above} cannot be a file, or an empty folder, and hold something"
            if names.setdefault(above.lower(), above) != above:
                return entry.path, f"{above} and {names[above.lower()]} differ only in case"
            at = entry.path.find("/", at + 1)
        kinds[entry.path] = entry.kind
        other = names.setdefault(entry.path.lower(), entry.path)
        if other != entry.path:
            return entry.path, f"it and {other} differ only in case"
    return None


def app_name_fault(name: str) -> str:
    """What is wrong with an application's name, which is also a folder's; "" where nothing is."""
    if len(name) > limits.MAX_APP_NAME:
        return f"a name may have {limits.MAX_APP_NAME} characters at most"
    return component_fault(name)


def check_app_name(name: str):
    """Raise UserError unless an application can be called so."""
    fault = app_name_fault(name)
    if fault:
        raise UserError(f"{name}: not a name for an application: {fault}; choose another with --as NAME", code="name")


def missing(manifest: Manifest, have) -> list:
    """(digest, size) of each content that is not in `have`, once, in the order of the manifest."""
    wanted = {}
    for entry in manifest.files:
        if entry.digest not in have:
            wanted[entry.digest] = entry.size
    return list(wanted.items())


def places(manifest: Manifest, above="") -> dict:
    """{digest: the first path that has this content}, behind `above`."""
    return {entry.digest: above + entry.path for entry in reversed(manifest.files)}


def changes(old: Manifest, new: Manifest) -> Changes:
    """What an update does to the files (an executable bit counts), for the person who is asked about it."""
    before = {entry.path: entry for entry in old.entries}
    after = {entry.path: entry for entry in new.entries}
    return Changes(
        [path for path in after if path not in before],
        [path for path in after if path in before and before[path] != after[path]],
        [path for path in before if path not in after])
