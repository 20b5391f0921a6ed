"""From a folder on the disk to its manifest: walk, hash, and walk again.

The second walk is what makes it a snapshot: where any file was written, replaced, made or removed in between, the
reading starts over, and after a few times the person is told instead. Otherwise a version could mix two states of a
program, and nobody would ever have tested that mixture.

Links, devices, sockets and pipes are refused, not skipped: a version that silently lacks a file fails on other
people's computers. What shall stay behind is listed in .p2pignore. No link is followed, also not one that is put in
place while the walk is going on (`Disk.below`).
"""

import hashlib

from .. import limits
from ..errors import UserError
from . import manifest
from .ignore import FILE, LONGEST, Ignore
from .manifest import NO_DIGEST, Entry, Manifest

TRIES = 4                            # a folder that changes each time it is read is in use
MOST_LOOKED_AT = 8 * limits.MAX_FILES    # names; somebody has shared `/`
VANISHED = ("missing", "link", "kind")   # codes of what opening says of a file that was there a moment ago

_KINDS = {"l": "a link; an application holds files and folders only: replace it by what it points to",
          "o": "a device, socket or pipe; an application holds files and folders only: remove it"}


class Changed(UserError):
    """A folder changes while it is read. `scan` and whoever copies from it raise this after some tries."""

    def __init__(self, folder, path):
        super().__init__(f"{folder}: {path} changes while it is being read; stop what writes there and try again",
                         code="changed")


def ignore_file(tree) -> Ignore:
    """The rules of a folder that is shared."""
    if not tree.exists(FILE):
        return Ignore()
    return Ignore(tree.read_bytes(FILE, LONGEST).decode("utf-8-sig", "replace"))


def scan(disk, folder, ignore=None, exactly=False) -> Manifest:
    """The manifest of a folder. UserError names the first path that cannot be shared and says what to do.

    `ignore`: rules instead of those in its .p2pignore. `exactly`: nothing stays behind (an installed version).
    """
    found = disk.status(folder)
    if found is None:
        raise UserError(f"{folder}: there is no such folder; check the path", code="missing")
    if found.kind != "d" and (exactly or found.kind != "l"):
        raise UserError(f"{folder}: not a folder; put it into a folder of its own and share that", code="path")
    tree = disk.below(folder)
    if not exactly and ignore is None:
        ignore = ignore_file(tree)
    for _ in range(TRIES):
        before = _walk(tree, folder, ignore)
        entries, vanished = _read(tree, before)
        after = _walk(tree, folder, ignore)
        different = vanished or _difference(before, after)
        if not different:
            return Manifest(entries)
    raise Changed(folder, different)


def digest_of(tree, path: str, size: int):
    """SHA-256 of a file that has exactly `size` bytes, else None: a file may grow for as long as it is read."""
    sha, length = hashlib.sha256(), 0
    for block in tree.blocks(path):
        length += len(block)
        if length > size:
            return None
        sha.update(block)
    return sha.digest() if length == size else None


def _walk(tree, folder, ignore):
    """{path: Status} of all files and all empty folders that are shared, in order."""
    found, faults, waiting, looked_at = {}, [], [""], 0
    while waiting:
        above = waiting.pop()
        names = _names(tree, above)
        looked_at += len(names)
        if looked_at > MOST_LOOKED_AT:
            raise UserError(f"{folder}: more than {MOST_LOOKED_AT} names below it; is it the right folder?", code="limit")
        is_empty = True
        for name in names:
            path = f"{above}/{name}" if above else name
            status = tree.status(path)
            if status is None or ignore and ignore.fits(path, status.kind == "d"):
                continue
            is_empty = False
            fault = _KINDS.get(status.kind) or manifest.path_fault(path)
            if fault:
                faults.append((path, fault))
            elif status.kind == "d":
                waiting.append(path)
            else:
                found[path] = status
        if is_empty and above:
            status = tree.status(above)
            if status is not None:
                found[above] = status
    _refuse(folder, faults, found)
    return found


def _names(tree, path):
    try:
        return tree.listdir(path or ".")
    except UserError as error:
        if path and error.code in VANISHED:
            return []
        raise


def _refuse(folder, faults, found):
    """Raise UserError for the first path that cannot be shared, with the number of the others."""
    if not faults:
        pair = manifest.tree_fault([_entry(path, status, NO_DIGEST) for path, status in found.items()])
        faults = [pair] if pair else []
    if faults:
        (path, fault), others = min(faults), len(faults) - 1
        more = f" ({others} more like this)" if others else ""
        raise UserError(f"{folder}: {path}: {fault}; or list it in {FILE}{more}", code="path")
    size = sum(status.size for status in found.values() if status.kind == "f")
    if len(found) > limits.MAX_FILES or size > limits.MAX_APP_BYTES:
        raise UserError(f"{folder}: {len(found)} files of {size} bytes; an application has at most {limits.MAX_FILES} "
                        f"files and {limits.MAX_APP_BYTES} bytes; list what it does not need in {FILE}", code="limit")


def _read(tree, found):
    """(entries, the path that vanished or changed meanwhile or None)."""
    entries = []
    for path, status in found.items():
        digest = NO_DIGEST
        if status.kind == "f":
            try:
                digest = digest_of(tree, path, status.size)
            except UserError as error:
                if error.code not in VANISHED:
                    raise
                digest = None
            if digest is None:
                return [], path
        entries.append(_entry(path, status, digest))
    return entries, None


def _entry(path, status, digest):
    if status.kind == "d":
        return Entry(path, "d", False, 0, NO_DIGEST)
    return Entry(path, "f", bool(status.mode & 0o100), status.size, digest)


def _difference(before, after):
    """The first path that is not as it was, or None. A folder's stamp says nothing that the files do not."""
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None or new is None or old.kind != new.kind or old.kind == "f" and old.stamp != new.stamp:
            return path
    return None
