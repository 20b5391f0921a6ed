"""From a folder to its manifest: everything that is shared, nothing else, and never two states mixed."""

import os
import socket
import threading

import pytest

from p2p import limits
from p2p.disk import Disk
from p2p.errors import UserError
from p2p.sync import scan as module
from p2p.sync.ignore import Ignore
from p2p.sync.scan import scan

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX files")


def lay(root, files):
    """Files by path; None makes a folder."""
    for path, content in files.items():
        target = root / path
        (target if content is None else target.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            target.write_bytes(content)
    return root


def paths(root, **options):
    return [entry.path for entry in scan(Disk(), root, **options).entries]


def refused(root):
    with pytest.raises(UserError) as caught:
        scan(Disk(), root)
    return str(caught.value)


def test_files_executable_bits_and_empty_folders_are_what_counts(tmp_path):
    lay(tmp_path, {"main.py": b"print()", "sub/run": b"#!", "sub/none": b"", "empty/in": None})
    os.chmod(tmp_path / "sub" / "run", 0o755)
    os.chmod(tmp_path / "main.py", 0o400)
    manifest = scan(Disk(), tmp_path)
    assert [entry[:4] for entry in manifest.entries] == [
        ("empty/in", "d", False, 0), ("main.py", "f", False, 7), ("sub/none", "f", False, 0), ("sub/run", "f", True, 2)]
    os.utime(tmp_path / "main.py", (1, 1))
    assert scan(Disk(), tmp_path).version == manifest.version


def test_what_shall_stay_behind_stays_behind(tmp_path):
    lay(tmp_path, {
        ".git/config": b"", "a/.git": b"", "a/__pycache__/m.pyc": b"", "main.py": b"", "x.log": b"", "a/y.log": b"",
        "build/out": b"", "a/build": b"", "docs/draft.md": b"", "a/docs/draft.md": b"", "notes": b"", "a/notes": b"",
        "t1.tmp": b"", "t22.tmp": b"",
        ".p2pignore": b"\xef\xbb\xbf# what stays\r\n\r\n*.log\r\nbuild/\r\ndocs/draft.md\n/notes\nt?.tmp\n"})
    assert paths(tmp_path) == ["a/build", "a/docs/draft.md", "a/notes", "docs", "main.py", "t22.tmp"]


@pytest.mark.parametrize("line", ["!keep", "**/x", "a/**"])
def test_patterns_that_would_be_misread_are_refused(line):
    with pytest.raises(UserError) as caught:
        Ignore(line)
    assert line in str(caught.value)


@posix
def test_links_sockets_and_pipes_are_named_with_what_to_do(tmp_path):
    lay(tmp_path, {"main.py": b"", "sub/x": b""})
    for make in (lambda path: os.symlink("main.py", path), lambda path: os.symlink("/etc", path),
                 lambda path: os.symlink("nowhere", path), os.mkfifo, a_socket):
        make(str(tmp_path / "sub" / "odd"))
        line = refused(tmp_path)
        assert f"{tmp_path}: sub/odd: a " in line and ".p2pignore" in line and "\n" not in line
        os.unlink(tmp_path / "sub" / "odd")
    os.symlink("main.py", tmp_path / "sub" / "odd")
    (tmp_path / ".p2pignore").write_text("odd\n")
    assert paths(tmp_path) == ["main.py", "sub/x"]


def a_socket(path):
    made = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(os.path.dirname(path))      # a socket's path is short
    try:
        made.bind(os.path.basename(path))
    finally:
        os.chdir(here)
        made.close()


@pytest.mark.parametrize("name", [".hidden", "-rf", "a b", "nul.txt", "x.", "\u00e4", "a\nb", "a\x1b[2Jb", "~"])
@posix
def test_a_name_that_others_cannot_store_is_refused_by_name(tmp_path, name):
    lay(tmp_path, {"sub/" + name: b"", "main.py": b""})
    assert f": sub/{name}: " in refused(tmp_path)


@posix
def test_a_name_that_is_not_text_is_refused(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff\xfe", "wb"):
        pass
    assert ".p2pignore" in refused(tmp_path)


def test_names_that_differ_only_in_case_are_refused(tmp_path):
    lay(tmp_path, {"Read.me": b"", "read.me": b""})
    if len(os.listdir(tmp_path)) == 1:
        pytest.skip("this file system folds case")
    assert "differ only in case" in refused(tmp_path)


def test_several_faults_are_one_line_with_their_number(tmp_path):
    lay(tmp_path, {".a": b"", ".b": b"", "d/.c": b""})
    assert ": .a: " in refused(tmp_path) and "(2 more like this)" in refused(tmp_path)


def test_folders_that_are_not_there_or_no_folders_are_refused(tmp_path):
    assert "no such folder" in refused(tmp_path / "none")
    lay(tmp_path, {"f": b""})
    assert "not a folder" in refused(tmp_path / "f")


def test_depth_and_numbers_are_bounded(tmp_path, monkeypatch):
    lay(tmp_path / "deep", {"d/" * 16 + "f": b""})
    assert "deep at most" in refused(tmp_path / "deep")
    lay(tmp_path / "many", {f"f{n}": b"12" for n in range(6)})
    monkeypatch.setattr(limits, "MAX_APP_BYTES", 11)
    assert "11 bytes" in refused(tmp_path / "many")
    monkeypatch.setattr(limits, "MAX_FILES", 5)
    assert "6 files" in refused(tmp_path / "many")
    monkeypatch.setattr(module, "MOST_LOOKED_AT", 5)
    assert "right folder" in refused(tmp_path / "many")


class Busy(Disk):
    """Lets somebody change the folder while a file is being read."""

    change = staticmethod(lambda path, turn: None)
    turns = 0

    def blocks(self, path):
        yield from super().blocks(path)
        Busy.turns += 1
        Busy.change(self._full(path), Busy.turns)


@pytest.mark.parametrize("what", ["grows", "shrinks", "vanishes", "is replaced", "gets a neighbour", "changes its mode",
                                  "becomes a link"])
def test_a_change_while_reading_is_noticed_and_read_again(tmp_path, what):
    lay(tmp_path, {"a": b"one", "b": b"two"})
    Busy.turns = 0

    def change(path, turn):
        path = os.path.join(os.path.dirname(path), "a")
        if what == "grows":
            with open(path, "ab") as file:
                file.write(b"!")
        elif what == "shrinks":
            os.truncate(path, 0 if turn < 3 else 1)
        elif what == "vanishes":
            os.unlink(path)
        elif what == "is replaced":
            with open(path + "x", "wb") as file:
                file.write(b"new")
            os.replace(path + "x", path)
        elif what == "gets a neighbour":
            open(path + f"{turn}", "wb").close()
        elif what == "changes its mode":
            os.chmod(path, 0o755)
        else:
            os.unlink(path)
            os.symlink("/etc/passwd", path)

    Busy.change = staticmethod(lambda path, turn: change(path, turn) if turn == 2 else None)
    if what == "becomes a link":
        with pytest.raises(UserError) as caught:
            scan(Busy(), tmp_path)
        assert "a: a link" in str(caught.value)
        return
    found = scan(Busy(), tmp_path)
    assert found.version == scan(Disk(), tmp_path).version


def test_a_file_that_grows_for_ever_is_not_read_for_ever(tmp_path):
    class Growing(Disk):
        read = 0

        def blocks(self, path):
            while True:
                Growing.read += 1
                yield b"x"

    lay(tmp_path, {"log": b"12"})
    with pytest.raises(UserError) as caught:
        scan(Growing(), tmp_path)
    assert caught.value.code == "changed" and Growing.read == 3 * module.TRIES


def test_a_folder_that_never_rests_is_refused_with_the_path_that_changes(tmp_path):
    lay(tmp_path, {"log": b"", "main.py": b""})
    Busy.turns = 0
    Busy.change = staticmethod(lambda path, turn: (tmp_path / "log").write_bytes(b"x" * turn))
    with pytest.raises(UserError) as caught:
        scan(Busy(), tmp_path)
    assert caught.value.code == "changed" and ": log changes while" in str(caught.value)


@posix
def test_a_folder_swapped_for_a_link_never_shares_what_the_link_points_to(tmp_path):
    outside = lay(tmp_path / "outside", {"secret": b"key", "f": b"key"})
    root = lay(tmp_path / "root", {"in/f": b"mine"})
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            os.rename(root / "in", tmp_path / "aside")
            os.symlink(outside, root / "in")
            os.unlink(root / "in")
            os.rename(tmp_path / "aside", root / "in")

    wanted = {(), ("in/f",)}
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(150):
            try:
                found = scan(Disk(), root)
            except UserError:
                continue
            assert tuple(entry.path for entry in found.entries) in wanted and found.bytes in (0, 4)
    finally:
        stop.set()
        swapper.join()
