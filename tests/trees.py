"""Small applications to share, fetch and install, and a look at what came out: for the tests of manifests, scans and the store."""

import hashlib
import os

import pytest

from p2p.disk import Disk
from p2p.sync.manifest import NO_DIGEST, Entry, Manifest
from p2p.sync.scan import scan
from p2p.sync.store import Store

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX files")

BIG = bytes(range(256)) * 10_000          # more than two blocks
TREE = {"main.py": (b"print()", False), "bin/tool": (b"#!", True), "sub/deep/big": (BIG, False), "twin": (BIG, True),
        "none": (b"", False), "also/none": (b"", True)}


def a_manifest(tree, *folders):
    entries = [Entry(path, "f", executable, len(content), sha(content)) for path, (content, executable) in tree.items()]
    return Manifest(entries + [Entry(path, "d", False, 0, NO_DIGEST) for path in folders])


def sha(content):
    return hashlib.sha256(content).digest()


def lay(root, tree, *folders):
    for path, (content, executable) in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        os.chmod(root / path, 0o755 if executable else 0o644)
    for path in folders:
        (root / path).mkdir(parents=True)
    return root


def a_store(tmp_path, disk=None, **options):
    store = Store(tmp_path / "home", disk or Disk(), **options)
    store.recover()
    return store


def fetch(staging, contents, step=1 << 20):
    """What a transfer does: every missing content in pieces."""
    for digest, size in staging.missing():
        content = contents[digest]
        for offset in range(0, size, step):
            staging.write(digest, offset, content[offset:offset + step])
        assert staging.finish_file(digest)


def contents_of(tree):
    return {sha(content): content for content, _ in tree.values()}


def check_installed(store, name, manifest):
    """The folder holds exactly what the manifest says, with the right modes."""
    assert manifest.version in store.installed(name) and store.is_installed(name, manifest.version)
    folder = store.folder(name, manifest.version)
    assert scan(Disk(), folder, exactly=True).version == manifest.version
    assert store.manifest(manifest.version).entries == manifest.entries
    if os.name == "posix":
        for entry in manifest.files:
            mode = os.lstat(os.path.join(folder, entry.path)).st_mode & 0o7777
            assert mode == (0o755 if entry.executable else 0o644), entry.path


def everything_in(folder):
    return sorted(os.path.relpath(os.path.join(above, name), folder)
                  for above, folders, files in os.walk(folder) for name in folders + files)
