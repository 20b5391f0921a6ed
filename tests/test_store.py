"""Installed versions: what is here, what is served, what is shared, and what a crash leaves behind."""

import os
import random
import shutil
import threading
import time

import pytest

from p2p import limits
from p2p.disk import Disk
from p2p.errors import PeerError, UserError
from p2p.sync.manifest import Entry, Manifest
from p2p.sync.scan import scan

from .trees import BIG, TREE, a_manifest, a_store, check_installed, contents_of, everything_in, fetch, lay, sha


@pytest.mark.parametrize("step", [1 << 20, 70_001])
def test_a_fetched_version_is_a_plain_folder_with_exactly_the_shared_files(tmp_path, step):
    store, manifest = a_store(tmp_path), a_manifest(TREE, "empty/in")
    staging = store.begin("chat", manifest)
    assert [size for _, size in staging.missing()] == [2, 7, len(BIG)]      # each content once, none for empty files
    assert not store.is_installed("chat", manifest.version) and store.names() == []
    fetch(staging, contents_of(TREE), step)
    assert not store.is_installed("chat", manifest.version)
    staging.commit()
    check_installed(store, "chat", manifest)
    assert store.names() == ["chat"] and store.holdings() == [("chat", manifest.version)]
    assert os.listdir(tmp_path / "home" / "staging") == []


def test_a_shared_folder_is_installed_as_a_snapshot(tmp_path):
    store = a_store(tmp_path)
    folder = lay(tmp_path / "chat", TREE, "empty")
    manifest = store.install_folder(folder, "chat")
    assert manifest.version == a_manifest(TREE, "empty").version
    (folder / "main.py").write_bytes(b"changed")
    check_installed(store, "chat", manifest)
    second = store.install_folder(folder, "chat")
    assert second.version != manifest.version and store.installed("chat") == [manifest.version, second.version]
    assert store.install_folder(folder, "chat").version == second.version
    check_installed(store, "chat", manifest)
    check_installed(store, "chat", second)


def test_pieces_may_come_in_any_order(tmp_path):
    store, manifest = a_store(tmp_path), a_manifest(TREE)
    staging = store.begin("chat", manifest)
    offsets = list(range(0, len(BIG), 100_000))
    random.Random(3).shuffle(offsets)
    for offset in offsets:
        staging.write(sha(BIG), offset, BIG[offset:offset + 100_000])
    assert staging.finish_file(sha(BIG)) and staging.finish_file(sha(BIG))
    fetch(staging, contents_of(TREE))
    staging.commit()
    check_installed(store, "chat", manifest)


def test_contents_that_are_here_are_copied_and_not_fetched(tmp_path):
    store = a_store(tmp_path)
    store.install_folder(lay(tmp_path / "a", TREE), "one")
    changed = dict(TREE, **{"main.py": (b"new", False), "moved/big": (BIG, False)})
    manifest = a_manifest(changed)
    assert store.missing_bytes(manifest) == 3
    staging = store.begin("other", manifest)
    assert staging.missing() == [(sha(b"new"), 3)]
    fetch(staging, contents_of(changed))
    staging.commit()
    check_installed(store, "other", manifest)


def test_an_installed_file_that_was_damaged_is_fetched_again_and_not_copied(tmp_path):
    store = a_store(tmp_path)
    old = store.install_folder(lay(tmp_path / "a", TREE), "one")
    for path in ("twin", "sub/deep/big"):
        with open(os.path.join(store.folder("one", old.version), path), "r+b") as file:
            file.write(b"\xff")
    os.unlink(os.path.join(store.folder("one", old.version), "main.py"))
    staging = store.begin("two", a_manifest(TREE))
    assert [size for _, size in staging.missing()] == [7, len(BIG)]
    fetch(staging, contents_of(TREE), 50_000)
    staging.commit()
    check_installed(store, "two", old)


def test_a_damaged_version_is_mended_from_this_disk_or_goes_so_that_it_can_be_fetched(tmp_path):
    store = a_store(tmp_path)
    source = lay(tmp_path / "a", TREE, "empty")
    manifest = store.install_folder(source, "one")
    folder = store.folder("one", manifest.version)
    assert store.mend("one", manifest.version)
    with open(os.path.join(folder, "scores"), "w") as file:
        file.write("a program wrote where it should not")
    assert store.mend("one", manifest.version)
    check_installed(store, "one", manifest)
    os.unlink(os.path.join(folder, "sub/deep/big"))
    assert not store.mend("one", manifest.version) and not store.is_installed("one", manifest.version)
    staging = store.begin("one", manifest)
    assert [size for _, size in staging.missing()] == [len(BIG)]
    staging.discard()
    store.install_folder(source, "one")
    with open(os.path.join(folder, "main.py"), "r+b") as file:
        file.write(b"\xff")
    assert store.install_folder(source, "one").version == manifest.version       # sharing it again repairs it
    check_installed(store, "one", manifest)
    assert os.listdir(tmp_path / "home" / "staging") == []


def test_two_names_may_hold_one_version_and_removing_one_leaves_the_other(tmp_path):
    store = a_store(tmp_path)
    folder = lay(tmp_path / "a", TREE)
    version = store.install_folder(folder, "one").version
    store.install_folder(folder, "two")
    store.data_folder("one")
    store.remove("one", version)
    store.remove("one", version)
    assert store.names() == ["two"] and store.read_block(sha(b"print()"), 0, 9) == b"print()"
    assert everything_in(tmp_path / "home" / "trash") == [] and (tmp_path / "home" / "data" / "one").is_dir()
    store.remove("two", version)
    assert store.names() == [] and store.manifest(version) is None and store.read_block(sha(b"print()"), 0, 9) is None
    assert os.listdir(tmp_path / "home" / "apps") == os.listdir(tmp_path / "home" / "manifests") == []
    with pytest.raises(UserError):
        store.folder("two", version)


def test_what_another_version_holds_too_is_still_served_when_one_is_removed(tmp_path):
    store = a_store(tmp_path, quota=len(BIG) * 5)
    folder = lay(tmp_path / "a", TREE)
    for name in ("one", "two"):
        version = store.install_folder(folder, name).version
    for name in ("two", "one"):
        assert store.read_block(sha(b"print()"), 0, 9) == b"print()"
        store.remove(name, version)
    assert store.read_block(sha(b"print()"), 0, 9) is None
    for _ in range(4):                                        # and its bytes no longer count
        store.remove("one", store.install_folder(folder, "one").version)


def test_peers_get_blocks_of_installed_files_by_content_and_nothing_else(tmp_path):
    store = a_store(tmp_path)
    manifest = store.install_folder(lay(tmp_path / "a", TREE), "one")
    blocks = [store.read_block(sha(BIG), offset, 1 << 20) for offset in range(0, len(BIG), 1 << 20)]
    assert b"".join(blocks) == BIG
    assert store.read_block(sha(BIG), len(BIG), 5) == b"" and store.read_block(sha(BIG), (1 << 64) - 1, 5) == b""
    with pytest.raises(PeerError):
        store.read_block(sha(BIG), 0, limits.MAX_BLOCK + 1)
    secret = b"a key"
    (tmp_path / "home" / "key").write_bytes(secret)
    lay(tmp_path, {"half": (secret, False)})
    staging = store.begin("two", a_manifest({"half": (secret, False), "x": (b"x", False)}))
    staging.write(sha(secret), 0, secret)
    assert store.read_block(sha(secret), 0, 5) is None
    staging.abort()
    assert store.manifest(manifest.version).version == manifest.version and store.manifest(bytes(32)) is None


def test_too_much_for_the_disk_or_the_quota_is_refused_before_the_first_byte(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    store = a_store(tmp_path, quota=1 << 20)
    bomb = Manifest([Entry("bomb", "f", False, free, b"1" * 32)])
    with pytest.raises(UserError) as caught:
        store.begin("chat", bomb)
    assert caught.value.code == "no-space" and "64.0 MiB always stay free" in str(caught.value)
    store.begin("first", Manifest([Entry("f", "f", False, 600_000, b"2" * 32)]))
    with pytest.raises(UserError) as caught:
        store.begin("second", Manifest([Entry("f", "f", False, 600_000, b"3" * 32)]))
    assert "remove versions below" in str(caught.value)
    assert os.listdir(tmp_path / "home" / "staging") == ["1.first"]
    store.install_folder(lay(tmp_path / "a", {"main.py": (bytes(400_000), False)}), "small")
    with pytest.raises(UserError):
        store.begin("second", Manifest([Entry("f", "f", False, 600_000, b"3" * 32)]))


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".x", "nul", "x" * 65, "a\0"])
def test_a_bad_name_gets_no_folder(tmp_path, name):
    store = a_store(tmp_path)
    for attempt in (lambda: store.begin(name, a_manifest(TREE)), lambda: store.data_folder(name),
                    lambda: store.install_folder(tmp_path, name), lambda: store.folder(name, bytes(32))):
        with pytest.raises(UserError):
            attempt()
    assert store.installed(name) == [] and not store.is_installed(name, bytes(32))
    store.remove(name, bytes(32))


def test_a_name_that_differs_only_in_case_is_refused(tmp_path):
    store = a_store(tmp_path)
    store.install_folder(lay(tmp_path / "a", TREE), "Chat")
    with pytest.raises(UserError) as caught:
        store.begin("chat", a_manifest(TREE))
    assert "called Chat" in str(caught.value)


def test_two_versions_of_one_application_may_be_fetched_side_by_side(tmp_path):
    store, other = a_store(tmp_path), dict(TREE, **{"main.py": (b"other", False)})
    stagings = [(store.begin("chat", a_manifest(tree)), tree) for tree in (TREE, other)]
    for staging, tree in stagings:
        fetch(staging, contents_of(tree))
        staging.commit()
    assert store.installed("chat") == [staging.manifest.version for staging, _ in stagings]


def test_one_version_is_fetched_once_at_a_time(tmp_path):
    store, manifest = a_store(tmp_path), a_manifest(TREE)
    staging = store.begin("chat", manifest)
    with pytest.raises(UserError) as caught:
        store.begin("chat", manifest)
    assert caught.value.code == "busy"
    staging.abort()
    with pytest.raises(UserError) as caught:
        staging.write(sha(BIG), 0, b"late")
    assert caught.value.code == "closed"
    store.begin("chat", manifest).discard()
    assert os.listdir(tmp_path / "home" / "staging") == []


def test_the_nodes_own_state_is_never_shared(tmp_path):
    store = a_store(tmp_path)
    os.symlink(tmp_path, str(tmp_path) + "-link")
    for folder in (tmp_path, tmp_path / "home", tmp_path / "home" / ".." / "home", str(tmp_path) + "-link", "/"):
        with pytest.raises(UserError) as caught:
            store.install_folder(folder, "all")
        assert "keys" in str(caught.value)
    os.unlink(str(tmp_path) + "-link")


def test_a_folder_without_files_is_not_shared(tmp_path):
    store = a_store(tmp_path)
    lay(tmp_path / "a", {}, "sub")
    with pytest.raises(UserError) as caught:
        store.install_folder(tmp_path / "a", "chat")
    assert "no file" in str(caught.value) and os.listdir(tmp_path / "home" / "staging") == []


def test_a_file_that_changes_between_reading_and_copying_is_noticed(tmp_path):
    folder = lay(tmp_path / "a", TREE)

    class Busy(Disk):
        reads = 0

        def blocks(self, path):
            Busy.reads += 1
            if Busy.reads == len(TREE) + 1:             # the scan has read each file once; now it is copied
                (folder / "bin" / "tool").write_bytes(b"changed in between")
            return super().blocks(path)

    store = a_store(tmp_path, Busy())
    manifest = store.install_folder(folder, "chat")
    assert store.installed("chat") == [manifest.version] and manifest.version == scan(Disk(), folder).version
    check_installed(store, "chat", manifest)


def test_what_was_verified_before_a_crash_is_not_fetched_again(tmp_path):
    store, manifest = a_store(tmp_path), a_manifest(TREE)
    staging = store.begin("chat", manifest)
    for offset in range(0, len(BIG), 1 << 20):
        staging.write(sha(BIG), offset, BIG[offset:offset + (1 << 20)])
    staging.finish_file(sha(BIG))
    staging.write(sha(b"print()"), 0, b"prin")
    tampered = tmp_path / "home" / staging.path / "tree" / "bin" / "tool"
    tampered.write_bytes(b"XX")
    again = a_store(tmp_path)                     # a new process: the old one has never ended its staging
    assert not os.path.exists(tmp_path / "home" / staging.path / "parts")
    staging = again.begin("chat", manifest)
    assert [size for _, size in staging.missing()] == [2, 7]
    assert len(os.listdir(tmp_path / "home" / "staging")) == 1
    staging.abort()
    newer = dict(TREE, **{"main.py": (b"newer", False)})
    staging = again.begin("chat", a_manifest(newer))
    assert [size for _, size in staging.missing()] == [2, 5]
    fetch(staging, contents_of(newer))
    staging.commit()
    check_installed(again, "chat", a_manifest(newer))
    assert os.listdir(tmp_path / "home" / "staging") == []


def test_recovery_removes_what_is_nobodys_and_nothing_else(tmp_path):
    store = a_store(tmp_path)
    home = tmp_path / "home"
    manifest = store.install_folder(lay(tmp_path / "a", TREE), "chat")
    data = store.data_folder("chat")
    lay(tmp_path, {"home/data/chat/score": (b"7", False), "home/staging/9.x/tree/f": (b"", False), "home/staging/odd": (b"", False),
                   "home/trash/4/old/f": (b"", False), "home/manifests/" + "0" * 64: (b"", False),
                   "home/manifests/.x.p2ptmp": (b"", False), "home/key": (b"k", False)})
    before = everything_in(home / "apps")
    store.recover()
    assert os.listdir(home / "staging") == [] and not (home / "trash").exists()
    assert os.listdir(home / "manifests") == [manifest.version.hex()]
    assert everything_in(home / "apps") == before and os.listdir(data) == ["score"] and (home / "key").exists()
    check_installed(store, "chat", manifest)


def test_a_folder_without_a_manifest_is_not_a_version_and_does_not_become_one_unverified(tmp_path):
    store = a_store(tmp_path)
    manifest = a_manifest(TREE)
    lay(tmp_path / "home" / "apps" / "chat" / manifest.version.hex(), {"main.py": (b"evil", False)})
    assert store.names() == [] and store.holdings() == []
    assert store.install_folder(lay(tmp_path / "a", TREE), "chat").version == manifest.version
    check_installed(store, "chat", manifest)


def test_a_damaged_manifest_is_said_and_costs_only_its_own_version(tmp_path):
    store = a_store(tmp_path)
    good = store.install_folder(lay(tmp_path / "a", {"main.py": (b"1", False)}), "good")
    bad = store.install_folder(lay(tmp_path / "b", TREE), "bad")
    (tmp_path / "home" / "manifests" / bad.version.hex()).write_bytes(b"garbage")
    store = a_store(tmp_path)
    with pytest.raises(UserError) as caught:
        store.manifest(bad.version)
    assert caught.value.code == "damaged"
    assert store.read_block(sha(b"1"), 0, 1) == b"1" and store.read_block(sha(BIG), 0, 1) is None
    check_installed(store, "good", good)
    store.remove("bad", bad.version)
    store.install_folder(tmp_path / "b", "bad")
    check_installed(store, "bad", bad)


def test_workers_may_fetch_share_serve_and_remove_at_once(tmp_path):
    store = a_store(tmp_path)
    base = store.install_folder(lay(tmp_path / "base", TREE), "base")
    failures = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            failures.append(error)

    def share(number):
        tree = {"main.py": (b"%d" % number, False), "big": (BIG, False)}
        folder = lay(tmp_path / f"s{number}", tree)
        for _ in range(3):
            version = store.install_folder(folder, f"app{number}").version
            check_installed(store, f"app{number}", a_manifest(tree))
            store.remove(f"app{number}", version)

    def serve():
        for _ in range(60):
            assert store.read_block(sha(b"print()"), 0, 7) == b"print()"
            assert ("base", base.version) in store.holdings()

    def halves(staging, content):
        for digest, size in staging.missing():
            if (digest[0] < 128) == content:
                staging.write(digest, 0, b"%d" % size if size > 9 else contents[digest])
                staging.finish_file(digest)

    tree = {f"f{n}": (b"%d!" % n, False) for n in range(60)}
    contents = contents_of(tree)
    staging = store.begin("many", a_manifest(tree))
    threads = [threading.Thread(target=guarded, args=(work,)) for work in (
        lambda: share(1), lambda: share(2), serve, lambda: halves(staging, True), lambda: halves(staging, False))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive()
    assert not failures, failures
    staging.commit()
    check_installed(store, "many", a_manifest(tree))
    assert store.names() == ["base", "many"]
