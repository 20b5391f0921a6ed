"""SIGKILL before each system call of installing, removing and recovering: every version is whole or absent."""

import subprocess
import sys

import pytest


from .trees import lay, posix


KILLED_AT_EACH_STEP = r"""
import hashlib, os, shutil, signal, sys
from p2p.disk import Disk
from p2p.sync.scan import scan
from p2p.sync.store import Store

base, deed = sys.argv[1:]
STEPS = "open write mkdir replace fsync unlink rmdir fchmod".split()
originals = {name: getattr(os, name) for name in STEPS}

def die_at(step):
    left = [step]
    def wrap(original):
        def stepped(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)
        return stepped
    for name, original in originals.items():
        setattr(os, name, wrap(original))

def do(store):
    if deed == "install":
        store.install_folder(base + "/new", "chat")
    elif deed == "remove":
        store.remove("chat", store.installed("chat")[-1])
    else:
        store.recover()

def whole(store, name, version):
    return scan(Disk(), store.folder(name, version), exactly=True).version == version

setup = Store(base + "/home", Disk())
setup.recover()
old = setup.install_folder(base + "/old", "chat").version
new = scan(Disk(), base + "/new").version
if deed == "remove":
    setup.install_folder(base + "/new", "chat")
if deed == "recover":
    staging = setup.begin("chat", scan(Disk(), base + "/new"))
    os.makedirs(base + "/home/trash/1/old/sub")
    open(base + "/home/manifests/" + "0" * 64, "w").close()
step, killed = 0, 0
while True:
    step += 1
    home = base + "/try"
    shutil.copytree(base + "/home", home)
    child = os.fork()
    if not child:
        die_at(step)
        do(Store(home, Disk()))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    store = Store(home, Disk())
    for moment in ("after the crash", "after recovery", "after trying again"):
        versions = store.installed("chat")
        assert old in versions and set(versions) <= {old, new}, (step, moment, versions)
        assert all(whole(store, "chat", version) for version in versions), (step, moment)
        assert store.read_block(hashlib.sha256(b"old").digest(), 0, 3) == b"old", (step, moment)
        if moment == "after the crash":
            store.recover()
            assert sorted(os.listdir(home + "/manifests")) == sorted(version.hex() for version in versions), (step, moment)
            assert not os.path.exists(home + "/trash"), (step, moment)
        elif moment == "after recovery" and deed == "install":
            store.install_folder(base + "/new", "chat")
            assert store.installed("chat")[-1] == new and os.listdir(home + "/staging") == [], (step, moment)
    shutil.rmtree(home)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    killed += 1
print(killed)
"""


@posix
@pytest.mark.parametrize("deed, least", [("install", 60), ("remove", 10), ("recover", 10)])
def test_sigkill_at_each_step_leaves_every_version_whole_or_absent(tmp_path, deed, least):
    lay(tmp_path / "old", {"main.py": (b"old", False), "same": (b"same", False)})
    lay(tmp_path / "new", {"main.py": (b"new", False), "same": (b"same", False), "sub/x": (b"x", True), "y": (b"x", False)}, "empty")
    done = subprocess.run([sys.executable, "-c", KILLED_AT_EACH_STEP, str(tmp_path), deed], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= least
