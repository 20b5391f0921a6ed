"""Every Python from 3.8 to 3.13 that is here with every other, and with itself: each once as the server and once as the client.

Certificates, contexts and handshakes by one process for each Python and part; then whole roots, one for each Python, that
find each other, talk, and fetch an application from each other.
"""
import subprocess
import sys

import pytest

from tests.interpreters import interpreters
from tests.nodes import PROGRAM, Nodes

pytestmark = pytest.mark.interop

# argv: the repository, a home, "serve" and how many come, or "dial" and the ports; both sides exchange their IDs inside TLS
MEET = """
import os, socket, sys
root, home, part, *numbers = sys.argv[1:]
sys.path.insert(0, root)
from p2p.disk import Disk
from p2p.trust.identity import Identity
from p2p.trust.networks import Networks
identity = Identity.load_or_create(Disk(), home, os.urandom)
networks = Networks(home, identity, Disk(), os.urandom)

def meet(plain, context, **how):
    plain.settimeout(30)
    with context.wrap_socket(plain, **how) as tls:
        peer, tag = networks.peer_identity(tls)
        assert tag == networks.tags[0] and tls.version() == "TLSv1.3"
        tls.sendall(identity.node_id)
        assert tls.recv(32) == peer != identity.node_id
        print("met", flush=True)

if part == "serve":
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    listener.settimeout(30)
    print(listener.getsockname()[1], flush=True)
    for _ in range(int(numbers[0])):
        meet(listener.accept()[0], networks.server_context(), server_side=True)
else:
    for port in numbers:
        meet(socket.create_connection(("127.0.0.1", int(port)), 30), networks.client_context(networks.tags[0]),
             server_hostname=networks.tags[0].hex())
"""


@pytest.fixture(scope="module")
def pythons():
    """{(3, 8): path, ...}; one alone meets nobody."""
    found = interpreters()
    if len(found) < 2:
        pytest.skip("only one Python of 3.8 or newer is here")
    return found


def test_every_pair_of_pythons_meets_in_both_directions(pythons, tmp_path):
    processes = []

    def start(version, part, *numbers):
        home = tmp_path / f"{part}{version[1]}"
        argv = [pythons[version], "-I", "-B", "-c", MEET, str(PROGRAM.parent), str(home), part, *map(str, numbers)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, encoding="utf-8")
        processes.append(process)
        return process
    try:
        servers = {version: start(version, "serve", len(pythons)) for version in pythons}
        ports = [server.stdout.readline().strip() for server in servers.values()]
        clients = {version: start(version, "dial", *ports) for version in pythons}
        for version, process in [*clients.items(), *servers.items()]:
            out, err = process.communicate(timeout=50)
            assert process.returncode == 0 and out.count("met") == len(pythons), f"{version}: {out} {err}"
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_roots_of_all_pythons_find_each_other_talk_and_serve_files(pythons, tmp_path, monkeypatch):
    nodes = Nodes(tmp_path)
    name = {version: f"py{version[1]}" for version in pythons}
    app = tmp_path / "hello"
    app.mkdir()
    (app / "main.py").write_text("print('hello')\n")
    try:
        for version, python in pythons.items():
            monkeypatch.setattr(sys, "executable", python)
            nodes.up(name[version])
        first, last = name[min(pythons)], name[max(pythons)]
        nodes.json(first, "share", app)
        for version, python in pythons.items():
            monkeypatch.setattr(sys, "executable", python)
            rows = nodes.json(name[version], "nodes", "--wait", len(pythons), "--timeout", "20")
            assert {row["name"] for row in rows if row["state"] == "alive"} == set(name.values())
            for other in name.values():
                if other != name[version]:
                    assert nodes.json(name[version], "ping", other, "-c", "1")["received"] == 1
                    assert nodes.run(name[version], "say", other, f"from {name[version]}").returncode == 0
            if name[version] != first:
                source = first if version != max(pythons) else name[sorted(pythons)[-2]]
                assert nodes.json(name[version], "sync", "hello", "--from", source)[0]["version"]
        log = (nodes.home(last) / "log").read_text("utf-8")
        assert all(f"from {other}" in log for other in name.values() if other != last)
    finally:
        nodes.close()
