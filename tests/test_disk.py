"""The one door to files: nothing half written, nothing followed, every failure one line that says what to do."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from p2p.disk import BLOCK, Disk, explain
from p2p.errors import UserError

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX files")


def test_a_file_is_replaced_whole_with_the_mode_asked_for(tmp_path):
    disk = Disk()
    old = os.umask(0o077)
    try:
        disk.write_atomic(tmp_path / "key", b"one")
        assert disk.status(tmp_path / "key").mode == 0o600
        disk.write_atomic(tmp_path / "key", b"two", 0o644)
    finally:
        os.umask(old)
    assert disk.read_bytes(tmp_path / "key", 3) == b"two"
    assert disk.status(tmp_path / "key").mode == 0o644
    assert disk.listdir(tmp_path) == ["key"]


def test_a_failed_write_leaves_the_old_file_and_no_leftover(tmp_path, monkeypatch):
    disk = Disk()
    disk.write_atomic(tmp_path / "key", b"one")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError) as caught:
        disk.write_atomic(tmp_path / "key", b"two")
    assert caught.value.code == "no-space" and "free some space" in str(caught.value)
    assert disk.read_bytes(tmp_path / "key", 9) == b"one" and disk.listdir(tmp_path) == ["key"]


def test_leftovers_of_a_power_cut_are_removed_and_nothing_else(tmp_path):
    (tmp_path / ".key.00ff.p2ptmp").write_bytes(b"ha")
    (tmp_path / "key").write_bytes(b"whole")
    Disk().remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["key"]


def test_reading_is_bounded(tmp_path):
    disk = Disk()
    (tmp_path / "f").write_bytes(b"x" * (BLOCK + 7))
    with pytest.raises(UserError) as caught:
        disk.read_bytes(tmp_path / "f", BLOCK)
    assert caught.value.code == "too-large"
    assert [len(block) for block in disk.blocks(tmp_path / "f")] == [BLOCK, 7]
    assert len(disk.read_at(tmp_path / "f", 5, BLOCK + 9)) == BLOCK + 2
    assert disk.read_at(tmp_path / "f", BLOCK + 7, 4) == b""


def test_creating_refuses_what_is_there(tmp_path):
    disk = Disk()
    disk.create(tmp_path / "f", b"1", 0o755)
    assert disk.status(tmp_path / "f").mode == 0o755
    with pytest.raises(UserError) as caught:
        disk.create(tmp_path / "f", b"2")
    assert caught.value.code == "exists" and (tmp_path / "f").read_bytes() == b"1"
    disk.write_at(tmp_path / "f", 3, b"4")
    assert (tmp_path / "f").read_bytes() == b"1\0\0004"
    with pytest.raises(UserError):
        disk.make_dir(tmp_path / "f")
    disk.make_dir(tmp_path / "a" / "b")
    disk.make_dir(tmp_path / "a" / "b")
    assert disk.status(tmp_path / "a").mode == 0o700
    with pytest.raises(UserError):
        disk.make_dir(tmp_path / "a", fresh=True)


@posix
def test_links_are_neither_read_nor_written_nor_followed_when_removing(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"s")
    root = tmp_path / "root"
    root.mkdir()
    (root / "door").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    disk = Disk().below(root)
    for attempt in (lambda: disk.read_bytes("file", 9), lambda: disk.read_bytes("door/secret", 9),
                    lambda: disk.write_at("file", 0, b"!"), lambda: disk.create("door/new", b"!"),
                    lambda: disk.create("file", b"!"), lambda: disk.write_atomic("door/secret", b"!"),
                    lambda: disk.listdir("door"), lambda: disk.make_dir("door/new"), lambda: disk.make_dir("door"),
                    lambda: disk.rename("file", "door/secret"), lambda: disk.remove_tree("door/secret"),
                    lambda: list(disk.blocks("file")), lambda: disk.status("door/secret")):
        with pytest.raises(UserError) as caught:
            attempt()
        assert caught.value.code in ("link", "exists")
    assert disk.status("door").kind == "l"
    disk.remove_tree("door")
    Disk().remove_tree(root)
    assert not root.exists() and (outside / "secret").read_bytes() == b"s" and os.listdir(outside) == ["secret"]


@posix
def test_a_folder_swapped_for_a_link_at_any_moment_leads_nothing_outside(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (root / "in").mkdir(parents=True)
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            os.rename(root / "in", root / "aside")
            os.symlink(outside, root / "in")
            os.unlink(root / "in")
            os.rename(root / "aside", root / "in")

    swapper = threading.Thread(target=swap)
    swapper.start()
    disk, refused, done = Disk().below(root), 0, 0
    try:
        for turn in range(2000):
            try:
                disk.create(f"in/f{turn}", b"x")
                done += 1
            except UserError:
                refused += 1
    finally:
        stop.set()
        swapper.join()
    assert os.listdir(outside) == []
    assert len(os.listdir(root / "in")) == done and done + refused == 2000


@posix
def test_a_pipe_or_folder_in_a_files_place_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(UserError) as caught:
            Disk().below(tmp_path).read_bytes(name, 9)
        assert caught.value.code == "kind"
    assert Disk().status(tmp_path / "pipe").kind == "o"


def test_the_stamp_changes_with_every_change(tmp_path):
    disk, path = Disk(), tmp_path / "f"
    path.write_bytes(b"1")
    seen = [disk.status(path).stamp]
    assert disk.status(path).stamp == seen[0]
    os.utime(path, ns=(1, 1))
    seen.append(disk.status(path).stamp)
    path.write_bytes(b"22")
    seen.append(disk.status(path).stamp)
    (tmp_path / "other").write_bytes(b"22")
    os.replace(tmp_path / "other", path)
    seen.append(disk.status(path).stamp)
    assert len(set(seen)) == 4
    assert disk.status(tmp_path / "none") is None and not disk.exists(tmp_path / "none")


def test_trees_are_moved_synced_and_removed_whole(tmp_path):
    disk = Disk().below(tmp_path)
    disk.make_dir("t/a/b", 0o755)
    disk.create("t/a/b/f", b"x")
    disk.create("t/a/locked", b"x", 0o400)
    disk.sync_tree("t")
    disk.rename("t", "u")
    disk.sync(".")
    assert disk.listdir("u/a") == ["b", "locked"] and disk.free_bytes(".") > 0
    disk.remove_tree("u")
    disk.remove_tree("u")
    assert disk.listdir(".") == []


def test_where_there_is_no_syncfs_every_file_is_synced(tmp_path, monkeypatch):
    from p2p import disk as module
    monkeypatch.setattr(module, "_sync_filesystem", lambda name, folder: False)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_bytes(b"")
    Disk().sync_tree(tmp_path)
    assert synced == [p.stat().st_ino for p in (tmp_path / "a" / "f", tmp_path / "a", tmp_path)]


def test_every_failure_is_one_line_with_what_why_and_what_to_do():
    for number in (errno.ENOENT, errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO, errno.EPIPE):
        line = str(explain(OSError(number, os.strerror(number)), "write", "/x/y"))
        assert line.startswith("cannot write /x/y: ") and "; " in line and "\n" not in line


@posix
def test_a_file_larger_than_this_user_may_write_is_a_line_and_no_traceback(tmp_path):
    program = ("import resource, sys; from p2p.disk import Disk; from p2p.errors import UserError\n"
               "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
               "try: Disk().write_atomic(sys.argv[1], bytes(5000))\n"
               "except UserError as error: print(error.code, error)")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "f")], capture_output=True, text=True, timeout=20)
    assert done.stdout.startswith("no-space cannot write ") and done.stderr == ""
    assert os.listdir(tmp_path) == []
