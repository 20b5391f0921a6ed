"""Named shared memory that only its maker removes.

`multiprocessing.shared_memory` reports each segment that a process opens to a tracker process (9.5 MB), which
unlinks it when the first of the openers ends: the first application to exit would destroy p2pstate for all others.
Only Python 3.13 can be told not to (`track=False`). Before that, our names are kept from being registered. They
must never be unregistered instead: that races with other openers, and starts the very process it is about.

So nobody cleans up but the maker: `remove` at its end, and after a SIGKILL `remove_stale` at the next start, by the
name that was written down; a home may never be started again, so where segments can be listed each root sweeps up after
the others of its user. Two locks keep that safe: the name's pattern, and an flock that the maker holds while it lives,
since a copied state folder brings a name with it that somebody else may be using.

Three more traps: a mapping that fails makes SharedMemory unlink, also what it only opened; a full /dev/shm kills by
SIGBUS at the first write unless room was reserved before; an open memoryview makes close() raise BufferError.
On Windows a segment has no file and vanishes with its last handle.
"""

import os
import sys
from typing import Any

from .errors import UserError

PREFIX = "p2pstate-"
FOLDER = "/dev/shm"      # where Linux lists them; macOS has no list
ENTROPY = 16             # hexadecimal digits; the whole name stays below macOS's 31 characters
_HEX = frozenset("0123456789abcdef")


def is_name(name) -> bool:
    """Is this a name that `create` gives?"""
    return (isinstance(name, str) and name.startswith(PREFIX)
            and len(name) == len(PREFIX) + ENTROPY and _HEX.issuperset(name[len(PREFIX):]))


def create(name: str, size: int):
    """A new SharedMemory of mode 0600, zeroed, with room that surely exists. UserError if there is none."""
    assert is_name(name), name
    try:
        memory = _open(name, create=True, size=size)
    except FileExistsError:
        raise UserError(f"the shared memory {name} exists already; start again, for another random name", code="exists")
    except OSError as error:
        remove(name)
        raise _no_room(error, size)
    try:
        _reserve(memory, size)
    except OSError as error:
        memory.close()
        remove(name)
        raise _no_room(error, size)
    return memory


def attach(name: str):
    """An existing SharedMemory; its end here does not touch it. OSError or ValueError where there is none."""
    assert is_name(name), name
    return _open(name)


def remove(name: str) -> bool:
    """Unlink what `create` made in this process. Those who are attached keep their memory."""
    if os.name == "nt":
        return False
    posix = _posix()       # what SharedMemory.unlink() calls; that itself would start the tracker before 3.13
    try:
        posix.shm_unlink("/" + name)
    except OSError:
        return False
    return True


def remove_stale(name: str) -> bool:
    """Unlink what a killed process of this user left, and nothing else: not a living one's, not another user's."""
    if os.name == "nt" or not is_name(name):
        return False
    posix = _posix()       # SharedMemory cannot open an empty segment, which is what dying within `create` leaves
    try:
        descriptor = posix.shm_open("/" + name, os.O_RDWR, mode=0o600)
    except OSError:
        return False
    try:
        if os.fstat(descriptor).st_uid != os.geteuid() or not _lock(descriptor):
            return False
        return remove(name)
    finally:
        os.close(descriptor)


def sweep(before: float) -> int:
    """Unlink all that killed processes of this user left; how many. `before` (Unix s): younger ones may not have their lock yet."""
    removed = 0
    for name in sorted(os.listdir(FOLDER)) if os.path.isdir(FOLDER) else []:
        try:
            is_old = is_name(name) and os.stat(os.path.join(FOLDER, name)).st_mtime < before
        except OSError:
            continue                     # its maker was quicker
        removed += is_old and remove_stale(name)
    return removed


def _posix() -> Any:
    import _posixshmem  # type: ignore[import-not-found]
    return _posixshmem


def _open(name, **how):
    from multiprocessing import resource_tracker
    from multiprocessing.shared_memory import SharedMemory

    class Segment(SharedMemory):
        """One whose failing constructor does not unlink what others use."""

        def unlink(self):
            """See `remove`."""

    if sys.version_info >= (3, 13):
        return Segment(name, track=False, **how)
    _keep_untracked(resource_tracker)
    return Segment(name, **how)


def _keep_untracked(resource_tracker):
    # Once for the process and for our names only: to swap and restore around each call would race with threads
    register: Any = resource_tracker.register
    if getattr(register, "leaves_out", None) == PREFIX:
        return

    def register_others(name, kind):
        if not name.lstrip("/").startswith(PREFIX):
            register(name, kind)

    marked: Any = register_others
    marked.leaves_out = PREFIX
    resource_tracker.register = marked


def _reserve(memory, size):
    descriptor = memory._fd               # public nowhere; there is no other way to it on macOS
    if descriptor < 0:
        return
    _lock(descriptor)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)


def _lock(descriptor):
    """Hold the segment for as long as this process has it open; False if another one does."""
    import fcntl
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True      # a system without locks on shared memory
    return True


def _no_room(error, size):
    return UserError(f"no shared memory of {size // 1024} KiB for p2pstate: {error.strerror or error}; free or enlarge "
                     "/dev/shm (`df /dev/shm` shows it)", code="no-shared-memory")
