"""The start of every program that `make bin/NAME` builds: unpacks the archive it stands in once, and runs it there.

A zip of sources can be run by any Python, but is compiled anew at each start (four times the floor) and gives
its program no folder to find files in. So the first start writes the files into a cache folder named by their
hash; later starts find it there, with Python's own compiled files beside. Child processes are started from
that folder like from any other: nothing knows that there was an archive.

The folder is trusted only if it belongs to this user and no one else can write to it, and used only if every
file in it has its size (a cleaner may have taken some). It is filled under another name and renamed when whole,
so two first starts at once, or a full disk, leave no half. No syntax here is newer than Python 2, so that an old
one can be told what is missing. `tools/pack.py` fills in what is being unpacked.
"""
import os
import stat
import sys

NAME = ENTRY = HASH = FILES = ""             # this line is replaced by tools/pack.py


def bases():
    """Folders that may hold the unpacked programs, the best one first."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        cache = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        cache = os.path.join(home, "Library", "Caches")
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    if os.path.isabs(cache):
        yield os.path.join(cache, "p2pframe")
    import tempfile
    user = "p2pframe-%d" % os.geteuid() if hasattr(os, "geteuid") else "p2pframe"
    yield os.path.join(tempfile.gettempdir(), user)


def is_ours(folder):
    """Whether this is a real folder of this user's, into which nobody else can put anything."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)


def is_whole(folder):
    """Whether every file is there with its size."""
    try:
        for line in FILES.split("\n"):
            size, path = line.split(" ", 1)
            if os.stat(folder + "/" + path).st_size != int(size):
                return False
    except OSError:
        return False
    return True


def unpack(archive, base):
    """Writes the archive's files into the folder below `base`, all or nothing."""
    import shutil
    import tempfile
    import zipfile
    os.makedirs(base, 0o700, exist_ok=True)
    if not is_ours(base):
        raise OSError("%s belongs to somebody else, or others can write to it" % base)
    folder = os.path.join(base, NAME + "-" + HASH)
    fresh = tempfile.mkdtemp(prefix=".new-", dir=base)
    try:
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if info.filename != "__main__.py":
                    target = os.path.join(fresh, info.filename)
                    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
                    mode = 0o700 if info.external_attr >> 16 & 0o100 else 0o600
                    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0),
                                      mode), "wb") as file:
                        file.write(packed.read(info))
        if os.path.lexists(folder) and not (is_ours(folder) and is_whole(folder)):
            os.rename(folder, os.path.join(tempfile.mkdtemp(prefix=".old-", dir=base), "gone"))
        try:
            os.rename(fresh, folder)
        except OSError:                      # another first start was quicker
            if not (is_ours(folder) and is_whole(folder)):
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        for name in os.listdir(base):
            if name.startswith(".old-"):
                shutil.rmtree(os.path.join(base, name), ignore_errors=True)
    return folder


def find(archive):
    """The folder with the unpacked files; unpacks them if need be."""
    failures = []
    for base in bases():
        folder = os.path.join(base, NAME + "-" + HASH)
        if is_ours(base) and is_ours(folder) and is_whole(folder):
            return folder
        try:
            return unpack(archive, base)
        except OSError as error:
            failures.append(str(error))
    sys.exit("%s: cannot unpack itself: %s. Make room, or set XDG_CACHE_HOME to a folder of yours"
             % (NAME, "; ".join(failures)))


def start():
    """Runs the entry script as if it had been started by its own path."""
    if sys.version_info < (3, 8):
        sys.exit("%s needs Python 3.8 or newer, and this is %s: start it with python3 or a newer one"
                 % (NAME, sys.version.split()[0]))
    archive = os.path.dirname(os.path.abspath(__file__))
    folder = find(archive)
    entry = os.path.join(folder, ENTRY)
    sys.path[:] = [folder] + [path for path in sys.path if os.path.abspath(path) != archive]
    sys.argv[0] = entry
    main = type(sys)("__main__")             # a fresh module, as Python makes one for a script
    main.__file__ = entry
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    with open(entry, "rb") as file:
        code = compile(file.read(), entry, "exec")
    exec(code, main.__dict__)


start()
