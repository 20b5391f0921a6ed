"""Makes a virtual environment and installs packages into it, or says in one line what is missing.

    python tools/venv.py .venv pytest

Python's own words for the two usual failures, a Debian without python3-venv and a computer without a package
index, are forty lines each. The file `ready` is written last, so that an environment that was interrupted half
way is made anew.
"""
import shutil
import subprocess
import sys
from pathlib import Path

DEADLINE = 600       # s; a slow index


def run(argv):
    """Runs one step; its exit code and last line of complaint."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=DEADLINE, encoding="utf-8", errors="replace")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return done.returncode, lines[-1] if lines else ""


def main(folder, *packages):
    """Makes the environment anew; the exit code."""
    place = Path(folder)
    shutil.rmtree(place, ignore_errors=True)
    print(f"{folder}: Python {sys.version.split()[0]} with {', '.join(packages)}", flush=True)
    code, said = run([sys.executable, "-m", "venv", folder])
    if code:
        print(f"venv: {sys.executable} cannot make {folder}: {said}. On Debian and Ubuntu: "
              f"apt-get install python3-venv", file=sys.stderr)
        return 1
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    code, said = run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
    if code:
        print(f"venv: cannot install {', '.join(packages)}: {said}. This needs a package index once; "
              f"the framework itself needs none", file=sys.stderr)
        return 1
    (place / "ready").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
