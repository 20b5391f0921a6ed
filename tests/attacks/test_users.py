"""Another user of the same computer: a second real uid looks for what it may not see and asks for what it may not have.

The other user is a fork of this process that gives up being root: what it then can and cannot do is the kernel's word.
It has its own certificate of the open network, as everybody has, and so may be a node beside this one; no more.
"""
import contextlib
import encodings.idna  # noqa: F401 - whoever cannot read this Python's folder cannot load it later
import json
import os
import re
import socket
import sys
import traceback

import pytest

from p2p import proto
from p2p.errors import P2PError
from p2p.owner import ROOT_FILE
from p2p.state import StateReader
from tests.attacks.hostile import Member, Wire, is_closed
from tests.nodes import Nodes
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="a second user can only be had by root")

OTHERS = (65534, 12345)
APP = "import sys, time\nprint('ready', flush=True)\ntime.sleep(60)\n"


def as_user(uid, function, *arguments):
    """What `function` returns (JSON) or raises (AssertionError with its text) in a process of this user."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            answer = ["value", function(*arguments)]
        except BaseException:  # the child of a fork must never come back into the test run
            answer = ["error", traceback.format_exc()]
        with os.fdopen(writing, "w") as out:
            json.dump(answer, out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        answer = json.load(said)
    os.waitpid(pid, 0)
    assert answer[0] == "value", answer[1]
    return answer[1]


def opens(paths, flags=os.O_RDONLY):
    """Those of the paths that this process can open or list."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            os.close(os.open(path, flags))
            found.append(path)
    return found


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    """A root with a running application; its home lies in a folder that everybody may enter."""
    folder = tmp_path_factory.mktemp("users")
    for above in [folder, *folder.parents]:
        if not os.stat(above).st_mode & 0o001:
            os.chmod(above, os.stat(above).st_mode | 0o011)
    nodes = Nodes(folder)
    app = folder / "waits"
    app.mkdir()
    (app / "main.py").write_text(APP)
    root = nodes.up("ann")
    nodes.json("ann", "network", "create", "lab")
    code = nodes.json("ann", "network", "invite", "lab")["code"]
    nodes.json("ann", "share", app, "--network", "lan")
    nodes.json("ann", "run", "waits", "--", "an argument")
    wait_until(lambda: "ready" in nodes.run("ann", "output", "1").stdout, 15.0, "the application")
    yield Ann(nodes, root, code)
    nodes.close()


class Ann:
    """The first user's root, its home and the processes below it."""

    def __init__(self, nodes, root, code):
        self.nodes, self.root, self.code, self.home = nodes, root, code, nodes.home("ann")
        about = json.loads((self.home / ROOT_FILE).read_text())
        self.port, self.state = about["port"], about["state"]

    def pids(self):
        """The root's and its instance's process ids."""
        found = [self.root.pid]
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{entry}/stat") as file:
                    if int(file.read().rpartition(")")[2].split()[1]) in found:
                        found.append(int(entry))
        return found

    def secrets(self):
        """The lines of its private keys, the network's keys, and nothing that may be known."""
        lines = {self.code}
        for path in (self.home / "networks").glob("*.json"):
            fields = json.loads(path.read_text())
            lines |= {fields["ca_key"], fields["udp_key"]}
        for path in [self.home / "identity.key", *(self.home / "networks").glob("*.pem")]:
            text = path.read_text("ascii", "replace").partition("-----END")[0]
            lines |= {line for line in text.splitlines() if len(line) > 20 and "-----" not in line}
        return lines


@pytest.mark.parametrize("uid", OTHERS)
def test_another_user_reads_nothing_of_the_home_and_the_keys(ann, uid):
    paths = [str(path) for path in [ann.home, *ann.home.rglob("*")]]
    assert len(paths) > 8 and as_user(uid, opens, paths) == [] and as_user(uid, opens, paths, os.O_WRONLY) == []
    assert opens(paths[:1]), "the twin: its own user can"


@pytest.mark.parametrize("uid", OTHERS)
def test_another_user_neither_reads_nor_writes_p2pstate(ann, uid):
    def read():
        try:
            StateReader(ann.state).read()
        except (P2PError, OSError) as error:
            return type(error).__name__
        return "read"
    assert read() == "read"
    segments = [f"/dev/shm/{name}" for name in os.listdir("/dev/shm") if ann.state in name or name in ann.state]
    assert segments and as_user(uid, opens, segments) == [] and as_user(uid, opens, segments, os.O_RDWR) == []
    assert as_user(uid, read) == "StateError"


def test_shared_memory_holds_no_secret_even_for_its_own_user(ann):
    """Each application of this user is given its name."""
    segments = [f"/dev/shm/{name}" for name in os.listdir("/dev/shm") if ann.state in name or name in ann.state]
    held = b"".join(open(path, "rb").read() for path in segments)
    assert b"waits" in held and b"lab" in held
    for secret in ann.secrets():
        forms = [secret.encode()] + ([bytes.fromhex(secret)] if re.fullmatch("([0-9a-f]{2}){16,}", secret) else [])
        assert not [form for form in forms if form in held]


@pytest.mark.parametrize("uid", OTHERS)
def test_another_user_finds_no_secret_in_arguments_environment_or_log(ann, uid):
    """Arguments are everybody's to read on Linux; the environment is not, and holds nothing all the same."""
    def arguments():
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    found.append(file.read().decode("latin-1"))
        return "\n".join(found)

    pids = ann.pids()
    assert len(pids) >= 2
    closed = [f"/proc/{pid}/{name}" for pid in pids for name in ("environ", "mem", "maps", "fd")]
    assert as_user(uid, opens, closed) == []
    seen = as_user(uid, arguments)
    own = "\n".join(open(f"/proc/{pid}/{name}", "rb").read().decode("latin-1") for pid in pids for name in ("environ", "cmdline"))
    logs = (ann.home / "log").read_text() + (ann.home / "log.runs").read_text()
    secrets = ann.secrets()
    assert len(secrets) > 5 and all(secrets) and not [secret for secret in secrets if secret in seen + own + logs]
    assert "p2pframe.py" in seen and not re.search(r"\b[0-9a-f]{32,}\b|[A-Za-z0-9+/]{60,}", own)


@pytest.mark.parametrize("uid", OTHERS)
@pytest.mark.parametrize("role", [proto.OWNER, proto.INSTANCE])
def test_another_user_is_another_node_and_cannot_command_this_one(ann, uid, role):
    """The port on loopback answers everybody, the owner's key alone commands."""
    mallory = Member("mallory")
    wire = Wire(None, "127.0.0.1", ann.port)
    assert mallory.context

    def command():
        line = mallory.dial(wire, role=role, session=1, token=bytes(32))
        with contextlib.suppress(OSError):
            line.send(proto.COMMAND, request=1, command=1, words=["down"], folder="/", as_json=False, yes=True, columns=80, rows=24,
                      color=False, is_terminal=False)
            number, flags, _, _ = line.next()
            return [number, flags]
        return "closed" if is_closed(line.sock) else "open"
    assert as_user(uid, command) == "closed"
    assert ann.root.poll() is None and ann.nodes.json("ann", "stats")["refused"]["role"] >= 1


@pytest.mark.parametrize("uid", OTHERS)
def test_another_user_can_signal_nothing_and_type_at_nothing(ann, uid):
    def kill():
        return [pid for pid in ann.pids() if can_signal(pid)]

    def can_signal(pid):
        try:
            os.kill(pid, 0)
            return True
        except PermissionError:
            return False
    terminals = sorted({os.readlink(f"/proc/{pid}/fd/0") for pid in ann.pids()[1:]})
    terminals = [path for path in terminals if path.startswith("/dev/pts/")]
    assert as_user(uid, kill) == []
    assert terminals and as_user(uid, opens, terminals) == [] and as_user(uid, opens, terminals, os.O_WRONLY | os.O_NOCTTY) == []


def test_no_port_but_the_roots_and_the_instances_own_are_open(ann):
    """There is no second way in: no unix socket, no other listener."""
    inodes = set()
    for pid in ann.pids():
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{entry}")
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    with open("/proc/net/unix") as file:
        named = [line for line in file if len(line.split()) > 7 and line.split()[6] in inodes]
    listening = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(name) as file:
            for line in list(file)[1:]:
                fields = line.split()
                if fields[9] in inodes and fields[3] == "0A":
                    listening.add(int(fields[1].rpartition(":")[2], 16))
    assert named == [] and listening == {ann.port}
    with socket.create_connection(("127.0.0.1", ann.port), 5):
        pass
