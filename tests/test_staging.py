"""A version on its way in: whatever peers send, strangers plant or disks lack, it is exactly what was offered, or nothing."""

import os
import random
import shutil
import subprocess
import sys
import threading

import pytest

from p2p import limits
from p2p.errors import PeerError, UserError
from p2p.sync.manifest import Manifest

from .trees import BIG, TREE, a_manifest, a_store, check_installed, contents_of, everything_in, fetch, lay, posix, sha


def test_a_byte_flipped_in_any_block_is_noticed(tmp_path):
    store, manifest = a_store(tmp_path), a_manifest(TREE)
    staging = store.begin("chat", manifest)
    for at in (0, 1 << 20, (2 << 20) + 5, len(BIG) - 1):
        wrong = bytearray(BIG)
        wrong[at] ^= 1
        for offset in range(0, len(BIG), 1 << 20):
            staging.write(sha(BIG), offset, bytes(wrong[offset:offset + (1 << 20)]))
        assert not staging.finish_file(sha(BIG)) and (sha(BIG), len(BIG)) in staging.missing()
    staging.write(sha(b"print()"), 0, b"Print()")
    assert not staging.finish_file(sha(b"print()")) and not staging.finish_file(sha(b"#!"))
    with pytest.raises(AssertionError):
        staging.commit()
    fetch(staging, contents_of(TREE))
    staging.commit()
    check_installed(store, "chat", manifest)


def test_a_file_that_lacks_bytes_does_not_count(tmp_path):
    staging = a_store(tmp_path).begin("chat", a_manifest(TREE))
    staging.write(sha(BIG), 0, BIG[:-1])
    assert not staging.finish_file(sha(BIG))
    staging.write(sha(BIG), 0, BIG[:5])
    staging.write(sha(BIG), 6, BIG[6:])
    assert not staging.finish_file(sha(BIG))


def test_bytes_beyond_a_file_or_of_a_file_that_nobody_wants_are_the_peers_fault(tmp_path):
    staging = a_store(tmp_path).begin("chat", a_manifest(TREE))
    for digest, offset, data in ((sha(BIG), len(BIG), b"x"), (sha(BIG), 1, BIG), (sha(BIG), -1, b"x"), (sha(BIG), 1 << 63, b"x"),
                                 (sha(b"stranger"), 0, b"stranger"), (sha(b""), 0, b"")):
        with pytest.raises(PeerError):
            staging.write(digest, offset, data)
    assert not os.listdir(os.path.join(tmp_path, "home", staging.path, "parts"))


def test_hostile_manifests_put_nothing_outside_the_home(tmp_path):
    (tmp_path / "around").mkdir()
    store = a_store(tmp_path / "around")
    chance, good = random.Random(11), a_manifest({"a/b": (b"x", False), "c": (b"y", True), "d": (b"", False)}, "e").encode()
    begun = 0
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(chance.randint(1, 2)):
            data[chance.randrange(9, len(data))] = chance.choice(b"./\\:~ aAbc\0\xff\x01\x03-_")
        try:
            staging = store.begin("chat", Manifest.decode(bytes(data)))
        except (PeerError, UserError):
            continue
        for content in (b"x", b"y"):
            try:
                staging.write(sha(content), 0, content)
            except PeerError:
                pass
        begun += 1
        staging.discard()
    assert begun > 20
    assert os.listdir(tmp_path / "around") == ["home"] and os.listdir(tmp_path) == ["around"]
    assert sorted(os.listdir(tmp_path / "around" / "home")) == ["apps", "manifests", "staging"]


@posix
def test_planted_links_are_not_followed(tmp_path):
    outside = lay(tmp_path / "outside", {"f": (b"mine", False)})
    store = a_store(tmp_path)
    base = tmp_path / "home"
    for path, target in (("parts/" + sha(BIG).hex(), outside / "f"), ("tree/twin", outside / "f"), ("tree/bin/tool", outside / "new"),
                         ("tree/bin", outside), ("tree/sub/deep", outside), ("parts", outside), ("tree", outside)):
        staging = store.begin("chat", a_manifest(TREE))
        place = base / staging.path / path
        if place.is_dir():
            shutil.rmtree(place)
        os.symlink(target, place)
        with pytest.raises((UserError, AssertionError)):
            fetch(staging, contents_of(TREE), 1 << 19)
            staging.commit()
        staging.discard()
        assert not store.is_installed("chat", staging.manifest.version), path
    assert everything_in(outside) == ["f"] and (outside / "f").read_bytes() == b"mine"


@posix
@pytest.mark.parametrize("what", ["content", "mode", "extra file", "extra folder", "missing file", "link", "pipe", "hidden"])
def test_whatever_a_stranger_did_to_the_tree_it_is_not_installed(tmp_path, what):
    store = a_store(tmp_path)
    staging = store.begin("chat", a_manifest(TREE))
    fetch(staging, contents_of(TREE))
    tree = tmp_path / "home" / staging.path / "tree"
    {"content": lambda: (tree / "main.py").write_bytes(b"PRINT()"),
     "mode": lambda: os.chmod(tree / "main.py", 0o755),
     "extra file": lambda: (tree / "extra").write_bytes(b""),
     "extra folder": lambda: (tree / "extra").mkdir(),
     "missing file": lambda: os.unlink(tree / "none"),
     "link": lambda: (os.rename(tree / "twin", tmp_path / "twin"), os.symlink(tmp_path / "twin", tree / "twin")),
     "pipe": lambda: os.mkfifo(tree / "pipe"),
     "hidden": lambda: (tree / ".git").mkdir()}[what]()
    with pytest.raises(UserError) as caught:
        staging.commit()
    assert caught.value.code == "changed" and "nothing was installed" in str(caught.value)
    assert store.names() == [] and os.listdir(tmp_path / "home" / "staging") == []


@posix
def test_a_racing_swapper_gets_nothing_outside(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    store = a_store(tmp_path)
    stop, spot = threading.Event(), []

    def swap():
        while not stop.is_set():
            for path in spot[-1:]:
                try:
                    os.rename(path, path + ".aside")
                    os.symlink(outside, path)
                    os.unlink(path)
                    os.rename(path + ".aside", path)
                except OSError:
                    pass

    swapper = threading.Thread(target=swap)
    swapper.start()
    tree = {f"sub/f{n}": (b"%d" % n, False) for n in range(40)}
    try:
        for turn in range(12):
            try:
                staging = store.begin("chat", a_manifest(tree))
                spot.append(os.path.join(store.home, staging.path, ("tree/sub", "tree", "parts")[turn % 3]))
                fetch(staging, contents_of(tree))
                staging.commit()
                break
            except (UserError, AssertionError):
                spot.append("")
                shutil.rmtree(os.path.join(store.home, staging.path), ignore_errors=True)
                staging.abort()
    finally:
        stop.set()
        swapper.join()
    assert os.listdir(outside) == []


@posix
def test_a_full_disk_is_one_line_and_the_old_version_stays(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    size = limits.DISK_RESERVE + (12 << 20)
    if os.geteuid() or subprocess.call(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(mount)], stderr=subprocess.DEVNULL):
        pytest.skip("needs root and mount to make a small file system")
    try:
        store = a_store(mount)
        old = store.install_folder(lay(tmp_path / "a", {"main.py": (b"old", False)}), "chat")
        new = {"main.py": (b"new", False), "big": (random.Random(1).getrandbits(8 * 6_000_000).to_bytes(6_000_000, "big"), False)}
        staging = store.begin("chat", a_manifest(new))
        with open(mount / "filler", "wb") as filler:       # somebody else fills the disk after we had looked
            filler.truncate(0)
            os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(mount).free - 3_000_000)
        with pytest.raises(UserError) as caught:
            fetch(staging, contents_of(new), 1 << 18)
        assert caught.value.code == "no-space" and "the disk is full" in str(caught.value)
        staging.abort()
        check_installed(store, "chat", old)
        os.unlink(mount / "filler")
        staging = store.begin("chat", a_manifest(new))
        fetch(staging, contents_of(new))
        staging.commit()
        assert len(store.installed("chat")) == 2
    finally:
        subprocess.check_call(["umount", str(mount)])


@posix
def test_a_file_beyond_this_users_limit_is_one_line_and_the_old_version_stays(tmp_path):
    store = a_store(tmp_path)
    old = store.install_folder(lay(tmp_path / "a", {"main.py": (b"old", False)}), "chat")
    lay(tmp_path / "b", TREE)
    program = ("import resource, sys; from p2p.disk import Disk; from p2p.errors import UserError; from p2p.sync.store import Store\n"
               "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
               "try: Store(sys.argv[1], Disk()).install_folder(sys.argv[2], 'chat')\n"
               "except UserError as error: print(error.code)")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "home"), str(tmp_path / "b")], capture_output=True,
                          text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("no-space\n", "")
    store.recover()
    check_installed(store, "chat", old)
    assert store.installed("chat") == [old.version] and os.listdir(tmp_path / "home" / "staging") == []
