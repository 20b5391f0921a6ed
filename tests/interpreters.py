"""Pythons on this computer that really run, for tests in which different versions meet.

A name on the path proves nothing: a version manager's `python3.8` may be a stub that fails. Each is asked.
"""
import functools
import re
import shutil
import subprocess
from pathlib import Path

OLDEST, NEWEST = (3, 8), (3, 13)
ASK = "import sys; print('%d.%d' % sys.version_info[:2])"


@functools.lru_cache(maxsize=None)
def interpreters():
    """{(3, 8): "/path/to/python", ...} in ascending order: of each minor version the newest that is found."""
    found = {}
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        built = [path for path in Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3")]
        built.sort(key=lambda path: [int(number) for number in re.findall(r"\d+", path.parent.parent.name)])
        for path in [*map(str, reversed(built)), shutil.which(f"python3.{minor}")]:
            if path and runs(path, f"3.{minor}"):
                found[3, minor] = path
                break
    return found


def runs(path, version):
    """Whether this interpreter starts and is of this version."""
    try:
        done = subprocess.run([path, "-I", "-S", "-c", ASK], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=10, encoding="utf-8")
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version
