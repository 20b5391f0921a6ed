"""What an application consists of: one encoding for one tree, and no path that a peer could do harm with."""

import hashlib
import random
import struct

import pytest

from p2p import limits
from p2p.errors import PeerError, UserError
from p2p.sync.manifest import (EMPTY, NO_DIGEST, Entry, Manifest, app_name_fault, changes, check_app_name, missing,
                               path_fault, tree_fault)


def a_file(path, content=b"x", executable=False):
    return Entry(path, "f", executable, len(content), hashlib.sha256(content).digest())


def a_folder(path):
    return Entry(path, "d", False, 0, NO_DIGEST)


def raw(rows, count=None, head=b"p2pm\1"):
    """An encoding without any of the checks: (flags, path, size, digest)."""
    parts = [head + struct.pack("<I", len(rows) if count is None else count)]
    for flags, path, size, digest in rows:
        parts.append(struct.pack("<BH", flags, len(path)) + path)
        if flags:
            parts.append(struct.pack("<Q", size) + digest)
    return b"".join(parts)


A_TREE = [a_file("main.py", b"print()"), a_file("bin/tool", b"#!", True), a_file("bin/a.b-c+d_e"), a_folder("empty/in"),
          a_file("none", b"")]

BAD_PATHS = ["", ".", "..", "../x", "a/..", "a/../b", "a/../../b", "/a", "//a", "a//b", "a/", "./a", "a/.", ".hidden", "a/.b",
             "-rf", "a/-x", "+x", "a\\b", "..\\a", "C:", "C:/a", "a:b", "a b", " a", "a ", "a\n", "a\0b", "a\x1b[2J", "~",
             "~/a", "$HOME", "a*", "a?", "a|b", "\u00e4", "a\u202eb", "con", "CON", "Con.txt", "a/nul", "aux.tar.gz", "prn",
             "COM1", "com9.log", "LPT5", "a/lpt1.x", "a.", "a./b", "a..", "PROGRA~1", "x" * 256, "a/" * 16 + "a",
             "/".join(["x" * 200] * 3)]
GOOD_PATHS = ["a", "_", "0", "a.b", "a..b", "A-b+c_d.e", "console", "com0", "com10", "LPT", "nul_", "a.con", "x" * 255,
              "a/" * 15 + "a", "__init__.py"]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_bad_path_is_refused_when_sharing_and_when_receiving(path):
    assert path_fault(path)
    assert tree_fault([a_file("ok"), a_file(path)])[0] == path
    if path.isascii():
        with pytest.raises(PeerError):
            Manifest.decode(Manifest([a_file(path)]).encode())


@pytest.mark.parametrize("path", GOOD_PATHS)
def test_a_good_path_is_allowed(path):
    assert path_fault(path) == ""
    assert Manifest.decode(Manifest([a_file(path)]).encode()).entries == [a_file(path)]


@pytest.mark.parametrize("entries", [
    [a_file("a"), a_file("A")],
    [a_file("dir/a"), a_file("DIR/b")],
    [a_file("x/y/z"), a_file("x/Y")],
    [a_file("a"), a_file("a/b")],
    [a_file("a"), a_file("a-b"), a_file("a/b")],
    [a_folder("a"), a_file("a/b")],
    [a_folder("a"), a_folder("a/b")],
    [a_folder("a"), a_file("A")],
    [a_file("a"), a_file("a", b"other")],
    [a_file("a"), a_folder("a")],
])
def test_paths_that_cannot_stand_side_by_side_are_refused(entries):
    assert tree_fault(entries) and tree_fault(entries[::-1])
    with pytest.raises(PeerError):
        Manifest.decode(Manifest(entries).encode())


def test_equal_trees_have_one_encoding_and_one_version():
    first, second = Manifest(A_TREE), Manifest(A_TREE[::-1])
    assert first.encode() == second.encode() and first.version == second.version
    assert first.version == hashlib.sha256(first.encode()).digest()
    assert (len(first.files), first.bytes) == (4, 10)
    again = Manifest.decode(first.encode())
    assert again.entries == first.entries and again.version == first.version
    assert Manifest.decode(Manifest([]).encode()).entries == []


def test_each_property_of_a_file_is_part_of_the_version():
    versions = {Manifest([entry]).version for entry in (
        a_file("a"), a_file("b"), a_file("a", b"y"), a_file("a", b"xx"), a_file("a", executable=True), a_folder("a"))}
    assert len(versions) == 6


@pytest.mark.parametrize("data", [
    b"", b"p2pm", raw([], head=b"p2pm\2"), raw([], head=b"tar!\1"), raw([]) + b"\0",
    raw([(1, b"a", 1, EMPTY)], count=2), raw([(1, b"b", 0, EMPTY), (1, b"a", 0, EMPTY)]),
    raw([(1, b"a", 0, EMPTY), (1, b"a", 0, EMPTY)]), raw([(2, b"a", 0, EMPTY)]), raw([(255, b"a", 0, EMPTY)]),
    raw([(1, b"\xff", 0, EMPTY)]), raw([(1, b"", 0, EMPTY)]), raw([])[:-4] + b"\xff" * 4,
    raw([(1, b"a", 0, EMPTY)])[:-1], raw([(1, b"a" * 9, 0, EMPTY)])[:14],
])
def test_garbled_manifests_are_the_peers_fault(data):
    with pytest.raises(PeerError):
        Manifest.decode(data)


def test_lying_sizes_are_refused_before_anything_is_reserved():
    one, other = b"1" * 32, b"2" * 32
    half = limits.MAX_APP_BYTES // 2
    Manifest.decode(raw([(1, b"a", half, one), (1, b"b", half, one)]))
    for rows in ([(1, b"a", half, one), (1, b"b", half, one), (1, b"c", 1, other)],
                 [(1, b"a", (1 << 64) - 1, one)],
                 [(1, b"a", 5, one), (1, b"b", 6, one)],
                 [(1, b"a", 0, one)], [(1, b"a", 0, NO_DIGEST)], [(1, b"a", 1, EMPTY)]):
        with pytest.raises(PeerError):
            Manifest.decode(raw(rows))


def test_numbers_of_files_and_bytes_are_bounded():
    rows = [(1, b"f%05d" % n, 0, EMPTY) for n in range(limits.MAX_FILES + 1)]
    assert len(Manifest.decode(raw(rows[:-1])).files) == limits.MAX_FILES
    with pytest.raises(PeerError):
        Manifest.decode(raw(rows))
    with pytest.raises(PeerError):
        Manifest.decode(bytes(limits.MAX_MANIFEST + 1))


def test_whatever_decodes_is_canonical_and_stays_inside_its_folder():
    chance = random.Random(7)
    good = Manifest(A_TREE).encode()
    alphabet = b"./\\\0:~ aA\xff-_"
    decoded = 0
    for _ in range(6000):
        data = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            choice = chance.randrange(4)
            if choice == 0:
                data[at] = chance.randrange(256)
            elif choice == 1:
                data[at] = chance.choice(alphabet)
            elif choice == 2:
                del data[at:at + chance.randint(1, 40)]
            else:
                data[at:at] = bytes(chance.choice(alphabet) for _ in range(chance.randint(1, 4)))
            if not data:
                break
        try:
            manifest = Manifest.decode(bytes(data))
        except PeerError:
            continue
        decoded += 1
        assert manifest.encode() == bytes(data)
        for entry in manifest.entries:
            parts = entry.path.split("/")
            assert not {"", ".", ".."} & set(parts) and "\\" not in entry.path and ":" not in entry.path
    assert decoded > 100


def test_missing_names_each_content_once_in_order():
    tree = Manifest([a_file("b", b"2"), a_file("a", b"1"), a_file("c", b"1"), a_folder("d"), a_file("e", b"333")])
    digest = [hashlib.sha256(content).digest() for content in (b"1", b"2", b"333")]
    assert missing(tree, ()) == [(digest[0], 1), (digest[1], 1), (digest[2], 3)]
    assert missing(tree, {digest[1]}) == [(digest[0], 1), (digest[2], 3)]


def test_changes_name_what_an_update_does():
    old = Manifest([a_file("same"), a_file("gone"), a_file("edited", b"1"), a_file("run.sh")])
    new = Manifest([a_file("same"), a_file("new"), a_file("edited", b"2"), a_file("run.sh", executable=True)])
    assert changes(old, new) == (["new"], ["edited", "run.sh"], ["gone"])
    assert changes(old, old) == ([], [], [])


def test_application_names_are_folder_names():
    for name in ("", "..", ".x", "a/b", "-x", "a b", "nul", "x" * (limits.MAX_APP_NAME + 1), "\x1b[2J"):
        assert app_name_fault(name)
        with pytest.raises(UserError) as caught:
            check_app_name(name)
        assert "--as" in str(caught.value)
    check_app_name("chat-2.0")
