"""Builds what `make` promises: programs of one executable file each, and the importable library.

    python tools/pack.py bin/p2pframe bin/libp2pframe.zip bin/testapp 'bin/*'

`bin/p2pframe` holds the framework, its entry script and its applications; `bin/NAME` the framework's library and
the program `apps/NAME` (its main.py) or `tests/NAME.py`; `bin/test_NAME` runs a file of tests, for which it takes the
repository along; `bin/libp2pframe.zip` is the library alone, for PYTHONPATH.
All are zips of sources, so every supported Python runs them, wherever they were built; what a program does at
its start is in `tools/loader.py`.

The same sources give the same bytes on any machine: sorted names, one fixed time, two file modes, and nothing
compressed, since zlib's output differs between its versions. An unchanged result is not written again.
"""
import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path
from typing import List

ROOT = Path(__file__).resolve().parent.parent
SHEBANG = b"#!/usr/bin/env python3\n"
TIME = (1980, 1, 1, 0, 0, 0)        # the earliest that a zip can say
LIBRARY = "libp2pframe.zip"
PLACE = 'NAME = ENTRY = HASH = FILES = ""'


class Unknown(Exception):
    """A target that cannot be built; says which ones can."""


def files_below(folder, prefix=""):
    """{name in the archive: path} of a folder's files, without what editors, Python and version control leave."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            if not path.name.endswith((".pyc", "~")):
                found[prefix + "/".join(parts)] = path
    return found


def is_program(path):
    """Whether a file below tests/ is meant to be run by itself."""
    return not path.name.startswith("test_") and '\nif __name__ == "__main__":' in path.read_text("utf-8")


def programs():
    """Every name that `bin/*` stands for."""
    apps = [path.parent.name for path in (ROOT / "apps").glob("*/main.py")]
    tests = [path.stem for path in (ROOT / "tests").glob("*.py") if is_program(path)]
    return ["p2pframe", LIBRARY] + sorted(set(apps + tests))


def repository(name):
    """What a file of tests may import, start or look at. The file NAME.test tells which one is meant."""
    found = {path.name: path for path in ROOT.iterdir() if path.suffix in (".py", ".md", ".toml") or path.name == "Makefile"}
    for folder in ("p2p", "apps", "tests", "tools", "docs", "bench"):
        found.update(files_below(ROOT / folder, folder + "/"))
    return {**found, "run_tests.py": ROOT / "tools" / "run_tests.py", f"{name}.test": ROOT / "tests" / "__init__.py"}


def contents(name):
    """({name in the archive: path}, entry script or None) of one target."""
    library = files_below(ROOT / "p2p", "p2p/")
    if name == LIBRARY:
        return library, None
    if name == "p2pframe":
        return {**library, **files_below(ROOT / "apps", "apps/"), "p2pframe.py": ROOT / "p2pframe.py"}, "p2pframe.py"
    if (ROOT / "apps" / name / "main.py").is_file():
        return {**files_below(ROOT / "apps" / name), **library}, "main.py"
    if name.startswith("test_") and (ROOT / "tests" / f"{name}.py").is_file():
        return repository(name), "run_tests.py"
    if (ROOT / "tests" / f"{name}.py").is_file():
        return {f"{name}.py": ROOT / "tests" / f"{name}.py", **library}, f"{name}.py"
    raise Unknown(f"bin/{name}: there is neither apps/{name}/main.py nor tests/{name}.py; "
                  f"what can be built: {', '.join(programs())}")


def mode_of(path):
    """One of two modes, so that neither umask nor file system shows in the result."""
    return 0o755 if os.access(path, os.X_OK) else 0o644


def loader(name, entry, files):
    """The source of `__main__.py`: the loader with what it must know filled in."""
    digest = hashlib.sha256()
    sizes = []
    for inside, path in sorted(files.items()):
        data = path.read_bytes()
        digest.update(f"{inside}\0{mode_of(path):o}\0{len(data)}\0".encode() + data)
        sizes.append(f"{len(data)} {inside}")
    facts = {"NAME": name, "ENTRY": entry, "HASH": digest.hexdigest()[:16], "FILES": "\n".join(sizes)}
    source = (ROOT / "tools" / "loader.py").read_text("utf-8")
    before, line, after = source.partition(PLACE)
    assert line, "tools/loader.py has lost the line that is to be replaced"
    return before + "".join(f"{key} = {value!r}\n" for key, value in facts.items()) + after.partition("\n")[2]


def build(name):
    """The bytes of one target."""
    files, entry = contents(name)
    packed = io.BytesIO()
    if entry:
        packed.write(SHEBANG)
    with zipfile.ZipFile(packed, "a" if entry else "w", zipfile.ZIP_STORED) as archive:
        if entry:
            add(archive, "__main__.py", loader(name, entry, files).encode(), 0o644)
        for inside, path in sorted(files.items()):
            add(archive, inside, path.read_bytes(), mode_of(path))
    return packed.getvalue()


def add(archive, name, data, mode):
    """Adds one file, the same way everywhere."""
    info = zipfile.ZipInfo(name, TIME)
    info.create_system = 3               # Unix, also when built on Windows: the mode counts
    info.external_attr = (0o100000 | mode) << 16
    archive.writestr(info, data)


def write(target, data, executable):
    """Puts a target in place with one rename, so that a running program is never seen half replaced."""
    if target.is_file() and target.read_bytes() == data:
        return False
    target.parent.mkdir(exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    fresh.write_bytes(data)
    fresh.chmod(0o755 if executable else 0o644)
    os.replace(fresh, target)
    return True


def main(targets):
    """Builds each target below bin/; the exit code."""
    names: List[str] = []
    for target in targets:
        name = target[4:] if target.startswith("bin/") else target
        names += programs() if name == "*" else [name]
    try:
        for name in dict.fromkeys(names):
            changed = write(ROOT / "bin" / name, build(name), executable=name != LIBRARY)
            print(f"bin/{name}: {'built' if changed else 'unchanged'}")
    except (Unknown, OSError) as error:
        print(f"pack: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
