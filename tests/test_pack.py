"""What `make` builds runs: from one file, on any Python, unpacked once, and never half.

The sources are a stand-in tree with this repository's own Makefile and tools, so that these tests do not depend
on what the framework does at its start.
"""
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ENTRY = """import os, sys
import __main__
import p2p
if sys.argv[1:] == ["child"]:
    import subprocess
    sys.exit(subprocess.call([sys.executable, "-I", "-B", __main__.__file__, "born"]))
print(sys.argv[1:], __file__, __name__, __main__.__file__ == __file__ == sys.argv[0], p2p.__file__)
print("zipfile" in sys.modules, open(os.path.join(os.path.dirname(__file__), "apps", "chat", "note.txt")).read())
"""

CHILD = "import os, sys\nsys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))\n" + ENTRY


@pytest.fixture
def tree(tmp_path):
    """A small repository, and a home of its own for what it unpacks."""
    tree = tmp_path / "tree"
    files = {"p2p/__init__.py": "def name():\n    return 'library'\n", "p2pframe.py": CHILD,
             "apps/chat/main.py": "import sys, p2p, side\nprint('chat', p2p.name(), side.X, sys.argv[1:])\n",
             "apps/chat/side.py": "X = 5\n", "apps/chat/note.txt": "a note", "apps/chat/run.sh": "#!/bin/sh\n",
             "apps/chat/__pycache__/side.cpython-38.pyc": "no", "apps/chat/.git/config": "no", "apps/lines/app.ini": "",
             "tests/probe.py": "import p2p\n\nif __name__ == \"__main__\":\n    print('probe', p2p.name())\n",
             "tests/test_x.py": "\nif __name__ == \"__main__\":\n    pass\n", "tests/waiting.py": "X = 1\n"}
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "apps/chat/run.sh").chmod(0o755)
    (tree / "tools").mkdir()
    for name in ("pack.py", "loader.py", "venv.py"):
        shutil.copy(str(ROOT / "tools" / name), str(tree / "tools"))
    shutil.copy(str(ROOT / "Makefile"), str(tree))
    return tree


def pack(tree, *targets):
    return subprocess.run([sys.executable, "tools/pack.py", *targets], cwd=str(tree), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=30, encoding="utf-8")


def start(tree, *args, python=(sys.executable,), program="p2pframe", **env):
    """Runs a built program with a cache and a temporary folder of this test's own."""
    place = tree.parent
    (place / "tmp").mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), **env}
    return subprocess.run([*python, str(tree / "bin" / program), *args], cwd=str(place), env=environment, timeout=30,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, encoding="utf-8")


def unpacked(tree, base="home/.cache/p2pframe"):
    return sorted((tree.parent / base).iterdir())


def test_one_file_runs_with_its_arguments_and_unpacks_once(tree):
    assert pack(tree, "bin/p2pframe").stdout == "bin/p2pframe: built\n"
    first = start(tree, "nodes", "--wait 2")
    assert first.returncode == 0, first.stderr
    folder, = unpacked(tree)
    facts, loaded = first.stdout.splitlines()
    assert facts == f"['nodes', '--wait 2'] {folder}/p2pframe.py __main__ True {folder}/p2p/__init__.py"
    assert loaded == "True a note"
    before = os.stat(str(folder))
    again = start(tree)
    assert again.stdout.splitlines()[1] == "False a note"                # nothing was unpacked again
    assert os.stat(str(folder)).st_ino == before.st_ino and unpacked(tree) == [folder]
    assert list(folder.glob("p2p/__pycache__/*.pyc"))                    # and nothing is compiled again


def test_the_file_starts_by_its_first_line_too(tree):
    pack(tree, "bin/p2pframe")
    assert os.access(str(tree / "bin/p2pframe"), os.X_OK)
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    assert start(tree, "x", python=("env",), PATH=path).stdout.startswith("['x'] ")


def test_a_child_is_started_from_the_unpacked_folder(tree):
    pack(tree, "bin/p2pframe")
    done = start(tree, "child")
    assert done.stdout.startswith("['born'] "), done.stderr
    assert start(tree, "x", python=(sys.executable, "-I", "-B")).stdout.startswith("['x'] ")


def test_the_same_sources_give_the_same_bytes(tree):
    pack(tree, "bin/*")
    built = {path.name: path.read_bytes() for path in (tree / "bin").iterdir()}
    shutil.rmtree(str(tree / "bin"))
    for path in tree.rglob("*"):
        os.utime(str(path), (1, 1))
        if path.is_file() and path.suffix != ".sh":
            path.chmod(0o600)
    pack(tree, "bin/*")
    assert {path.name: path.read_bytes() for path in (tree / "bin").iterdir()} == built
    assert sorted(built) == ["chat", "libp2pframe.zip", "p2pframe", "probe"]
    assert pack(tree, "bin/chat").stdout == "bin/chat: unchanged\n"
    assert b"config" not in built["chat"] and b".pyc" not in built["chat"]


def test_other_sources_are_unpacked_beside_and_the_old_ones_stay(tree):
    pack(tree, "bin/p2pframe")
    start(tree)
    (tree / "apps/chat/note.txt").write_text("A note")                   # of the same length
    pack(tree, "bin/p2pframe")
    assert start(tree).stdout.endswith("A note\n")
    assert len(unpacked(tree)) == 2


def test_a_folder_that_a_cleaner_has_been_in_is_made_anew(tree):
    pack(tree, "bin/p2pframe")
    start(tree)
    folder, = unpacked(tree)
    (folder / "apps/chat/note.txt").unlink()
    assert start(tree).stdout.endswith("a note\n")
    assert unpacked(tree) == [folder]


def test_many_first_starts_at_once_all_succeed(tree):
    pack(tree, "bin/p2pframe")
    results = []
    threads = [threading.Thread(target=lambda: results.append(start(tree))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [(done.returncode, done.stdout.splitlines()[1][-6:]) for done in results] == [(0, "a note")] * 4
    assert len(unpacked(tree)) == 1


def test_files_are_private_and_keep_their_executable_bit(tree):
    pack(tree, "bin/p2pframe")
    before = os.umask(0)
    try:
        start(tree)
    finally:
        os.umask(before)
    folder, = unpacked(tree)
    modes = {path: stat.S_IMODE(os.stat(str(path)).st_mode) for path in [folder, folder.parent, folder / "apps/chat"]}
    assert set(modes.values()) == {0o700}
    assert stat.S_IMODE(os.stat(str(folder / "apps/chat/run.sh")).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(str(folder / "p2pframe.py")).st_mode) == 0o600


def test_what_others_can_write_to_is_not_trusted(tree):
    pack(tree, "bin/p2pframe")
    cache = tree.parent / "home/.cache/p2pframe"
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert "/tmp/p2pframe-" in start(tree).stdout                        # the private temporary folder instead
    assert unpacked(tree) == []
    other = tree.parent / f"tmp/p2pframe-{os.geteuid()}"
    shutil.rmtree(str(other))
    other.symlink_to(cache)
    done = start(tree)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("p2pframe: cannot unpack itself: ") and "XDG_CACHE_HOME" in done.stderr


def test_a_home_that_cannot_be_written_is_no_obstacle(tree):
    pack(tree, "bin/p2pframe")
    assert "/tmp/p2pframe-" in start(tree, HOME="/dev/null").stdout
    assert "/elsewhere/p2pframe/" in start(tree, XDG_CACHE_HOME=str(tree.parent / "elsewhere")).stdout


def test_apps_and_tests_become_programs(tree):
    pack(tree, "bin/chat", "bin/probe")
    assert start(tree, "a", program="chat").stdout == "chat library 5 ['a']\n"
    assert start(tree, program="probe").stdout == "probe library\n"


def test_a_file_of_tests_becomes_a_program_that_runs_them(tree):
    shutil.copy(str(ROOT / "tools" / "run_tests.py"), str(tree / "tools"))
    (tree / "pyproject.toml").write_text("")
    (tree / "tests/__init__.py").write_text("")
    (tree / "tests/test_x.py").write_text(
        "import p2p\nfrom tests.waiting import X\n\ndef test_it():\n    assert X == 1 and p2p.name() == 'no'\n")
    pack(tree, "bin/test_x")
    done = start(tree, "-q", program="test_x", python=(sys.executable,))
    assert done.returncode == 1 and "1 failed" in done.stdout and "'library' == 'no'" in done.stdout, done.stdout + done.stderr


def test_the_library_is_imported_from_its_zip(tree):
    pack(tree, "bin/libp2pframe.zip")
    code = "import p2p; print(p2p.name(), p2p.__file__)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(tree / "bin/libp2pframe.zip")},
                          cwd=str(tree / "bin"), stdout=subprocess.PIPE, timeout=30, encoding="utf-8")
    assert done.stdout.startswith("library ") and "libp2pframe.zip" in done.stdout


def test_an_unknown_name_is_one_clear_line(tree):
    done = pack(tree, "bin/nothing")
    assert (done.returncode, done.stdout) == (1, (
        "pack: bin/nothing: there is neither apps/nothing/main.py nor tests/nothing.py; "
        "what can be built: p2pframe, libp2pframe.zip, chat, probe\n"))


def old_pythons():
    found = [str(path) for path in Path.home().glob(".pyenv/versions/*/bin/python")
             if path.parent.parent.name.startswith(("2.7", "3.6", "3.7"))]
    return sorted(found) or [pytest.param("", marks=pytest.mark.skip("no Python older than 3.8 here"))]


@pytest.mark.parametrize("python", old_pythons())
def test_a_python_that_is_too_old_is_told_so(tree, python):
    pack(tree, "bin/p2pframe")
    done = start(tree, python=(python,))
    assert done.returncode == 1 and done.stderr.startswith("p2pframe needs Python 3.8 or newer, and this is ")
    for words in ([], ["--version"], ["nodes"]):             # and from the folder
        done = subprocess.run([python, "-B", str(ROOT / "p2pframe.py"), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
        assert done.returncode == 1 and done.stderr.startswith(b"p2pframe needs Python 3.8 or newer, and this is "), done.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not here")
def test_make_builds_what_its_targets_name(tree):
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}     # of a make around this

    def make(*targets):
        return subprocess.run(["make", f"PYTHON={sys.executable}", *targets], cwd=str(tree), env=env, timeout=60,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              encoding="utf-8")

    assert make().stdout == "bin/p2pframe: built\nbin/libp2pframe.zip: built\n"
    assert make("bin/chat").stdout == "bin/chat: built\n"
    done = make("bin/*")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "bin/p2pframe", "bin/libp2pframe.zip", "bin/chat", "bin/probe"]
    failed = make("bin/nothing")
    assert failed.returncode and "neither apps/nothing" in failed.stdout
    make("clean")
    assert not (tree / "bin").exists()
