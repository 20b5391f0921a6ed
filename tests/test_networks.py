"""Certificates and TLS: members get in, and everybody else is refused, over real sockets."""

import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading

import pytest

from p2p import system
from p2p.disk import Disk
from p2p.errors import PeerError, UserError
from p2p.trust import x509
from p2p.trust.ecc import PrivateKey
from p2p.trust.identity import Identity, prepare_home
from p2p.trust.networks import ALPN, Networks, derived_network, open_network
from p2p.trust.x509 import BadCertificate
from tests.interpreters import interpreters

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def credentials(home):
    identity = Identity.load_or_create(Disk(), str(home), os.urandom)
    return Networks(str(home), identity, Disk(), os.urandom), identity


class Server:
    """Accepts one connection, does the handshake, checks the identity, sends one line."""

    def __init__(self, networks):
        self.networks = networks
        self.result = None
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        plain, _ = self.socket.accept()
        plain.settimeout(5)
        try:
            with self.networks.server_context().wrap_socket(plain, server_side=True) as tls:
                self.result = self.networks.peer_identity(tls)
                tls.sendall(b"welcome")
                tls.recv(1)
        except (OSError, PeerError, ValueError) as error:
            self.result = error
            plain.close()

    def outcome(self):
        self.thread.join(10)
        self.socket.close()
        return self.result


def client(port, context, name, data=None):
    """What a client that dials gets to hear: bytes, or the exception."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            if context is None:
                plain.sendall(data)
                return plain.recv(100)
            with context.wrap_socket(plain, server_hostname=name) as tls:
                return tls.recv(100)
    except (OSError, ValueError) as error:
        return error


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    return credentials(tmp_path_factory.mktemp("ann") / "home")


@pytest.fixture(scope="module")
def bob(tmp_path_factory):
    return credentials(tmp_path_factory.mktemp("bob") / "home")


def certified(tmp_path, ca_key, alpn=ALPN, key=None, leaf=None):
    """A client's context with a certificate of this CA, trusting anybody."""
    key = key or PrivateKey.generate(os.urandom)
    path = tmp_path / "client.pem"
    path.write_text(key.to_pem() + x509.to_pem(leaf or x509.make_leaf(ca_key, key.public, os.urandom(16))))
    context = careless()
    context.load_cert_chain(str(path))
    context.set_alpn_protocols([alpn])
    return context


def careless():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    return context


def test_two_members_meet_and_know_each_other(ann, bob):
    server = Server(ann[0])
    tag = bob[0].tags[0]
    with socket.create_connection(("127.0.0.1", server.port), 5) as plain:
        with bob[0].client_context(tag).wrap_socket(plain, server_hostname=tag.hex()) as tls:
            assert bob[0].peer_identity(tls) == (ann[1].node_id, tag)
            assert tls.recv(7) == b"welcome"
    assert server.outcome() == (bob[1].node_id, tag)


LAN = open_network()


@pytest.mark.parametrize("case", ["stranger CA", "self-signed", "no certificate", "TLS 1.2", "other ALPN", "no ALPN", "unknown SNI", "no SNI",
                                  "SNI that is no hex", "tampered leaf", "plaintext", "garbage", "half a handshake"])
def test_everybody_else_is_refused(ann, tmp_path, case):
    server = Server(ann[0])
    key = PrivateKey.generate(os.urandom)
    name, data = LAN.tag.hex(), None
    context = certified(tmp_path, LAN.ca_key)
    if case == "stranger CA":
        context = certified(tmp_path, PrivateKey.generate(os.urandom))
    elif case == "self-signed":
        context = certified(tmp_path, key, key=key)
    elif case == "no certificate":
        context = careless()
    elif case == "TLS 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    elif case == "other ALPN":
        context.set_alpn_protocols(["h2"])
    elif case == "no ALPN":
        context = certified(tmp_path, LAN.ca_key)
        path = tmp_path / "client.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(str(path))
    elif case == "unknown SNI":
        name = "00" * 8
    elif case == "no SNI":
        name = None
    elif case == "SNI that is no hex":
        name = "example.com"
    elif case == "tampered leaf":
        leaf = bytearray(x509.make_leaf(LAN.ca_key, key.public, os.urandom(16)))
        leaf[-1] ^= 1
        context = certified(tmp_path, LAN.ca_key, key=key, leaf=bytes(leaf))
    else:
        context = None
        data = {"plaintext": b"GET / HTTP/1.1\r\n\r\n" + bytes(100), "garbage": os.urandom(500),
                "half a handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"}[case]
    heard = client(server.port, context, name, data)
    assert heard != b"welcome"
    outcome = server.outcome()
    assert isinstance(outcome, (OSError, PeerError)), outcome


def test_a_client_without_a_certificate_is_refused_though_the_context_is_swapped(ann):
    """The trap: with a base context of CERT_NONE the swap in the SNI callback lets it in."""
    assert ann[0].server_context().verify_mode == ssl.CERT_REQUIRED
    server = Server(ann[0])
    assert client(server.port, careless(), LAN.tag.hex()) != b"welcome"
    assert isinstance(server.outcome(), OSError)


def test_a_member_refuses_a_server_of_another_network(bob, tmp_path):
    stranger = PrivateKey.generate(os.urandom)
    key = PrivateKey.generate(os.urandom)
    (tmp_path / "server.pem").write_text(key.to_pem() + x509.to_pem(x509.make_leaf(stranger, key.public, os.urandom(16))))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(tmp_path / "server.pem"))
    context.set_alpn_protocols([ALPN])

    class Stranger:
        def server_context(self):
            return context

        def peer_identity(self, tls):
            return "fooled"
    server = Server(Stranger())
    tag = bob[0].tags[0]
    heard = client(server.port, bob[0].client_context(tag), tag.hex())
    assert isinstance(heard, ssl.SSLCertVerificationError)
    server.outcome()


def test_the_open_network_is_the_same_everywhere():
    assert open_network().ca == open_network().ca == LAN.ca
    done = subprocess.run([sys.executable, "-c", "import sys; from p2p.trust.networks import open_network as o; sys.stdout.write(o().ca.hex())"],
                          cwd=ROOT, capture_output=True, text=True, check=True)
    assert bytes.fromhex(done.stdout) == LAN.ca
    assert derived_network("x", "shared", b"secret").tag != LAN.tag


def test_a_mac_fits_its_data_and_network_alone():
    mac = LAN.mac(b"data")
    assert len(mac) == 16 and LAN.is_authentic(b"data", mac)
    assert not LAN.is_authentic(b"date", mac)
    assert not derived_network("x", "shared", b"secret").is_authentic(b"data", mac)


def test_the_key_of_a_certificate_is_found_and_hostile_der_gives_its_own_error():
    key = PrivateKey.generate(os.urandom)
    leaf = x509.make_leaf(LAN.ca_key, key.public, os.urandom(16))
    assert x509.spki_of(leaf) == key.public.spki
    for cut in range(len(leaf)):
        with pytest.raises(BadCertificate):
            x509.spki_of(leaf[:cut])
    dice = random.Random(5)
    for _ in range(3000):
        mutated = bytearray(leaf)
        for _ in range(dice.choice([1, 2, 5])):
            mutated[dice.randrange(len(mutated))] = dice.randrange(256)
        try:
            assert len(x509.spki_of(bytes(mutated))) == 91
        except BadCertificate:
            pass
    with pytest.raises(BadCertificate):
        x509.spki_of(bytes(10_000))


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_openssl_verifies_our_certificates_strictly(tmp_path):
    key = PrivateKey.generate(os.urandom)
    (tmp_path / "ca.pem").write_text(x509.to_pem(LAN.ca))
    (tmp_path / "leaf.pem").write_text(x509.to_pem(x509.make_leaf(LAN.ca_key, key.public, b"\xff" * 16)))
    for purpose in ("sslserver", "sslclient"):
        done = subprocess.run(["openssl", "verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose, "-CAfile", "ca.pem", "leaf.pem"],
                              cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    text = subprocess.run(["openssl", "x509", "-in", "leaf.pem", "-noout", "-text"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for wanted in ("CN = p2pframe node", "Not After : Dec 31 23:59:59 9999", "CA:FALSE", "Digital Signature", "DNS:node.p2pframe.invalid"):
        assert wanted in text


# -- on disk

def test_an_identity_stays_and_its_files_are_closed_to_others(tmp_path):
    home = tmp_path / "home"
    networks, identity = credentials(home)
    networks.server_context()
    assert credentials(home)[1].node_id == identity.node_id
    if not system.WINDOWS:
        for path in [home, *home.rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_certificate_is_made_once_and_again_when_the_key_is_another(tmp_path):
    networks, identity = credentials(tmp_path / "home")
    networks.server_context()
    [pem] = (tmp_path / "home" / "networks").glob("*.pem")
    before = pem.read_bytes()
    credentials(tmp_path / "home")[0].server_context()
    assert pem.read_bytes() == before
    (tmp_path / "home" / "identity.key").unlink()
    credentials(tmp_path / "home")[0].server_context()
    assert pem.read_bytes() != before


@pytest.mark.skipif(system.WINDOWS, reason="POSIX modes")
@pytest.mark.parametrize("name, mode", [("identity.key", 0o640), (".", 0o755)])
def test_a_key_or_home_that_others_can_read_is_refused_with_the_command_that_closes_it(tmp_path, name, mode):
    home = tmp_path / "home"
    credentials(home)
    os.chmod(str(home / name), mode)
    with pytest.raises(UserError, match="chmod") as caught:
        credentials(home)
    assert "\n" not in str(caught.value)


def test_a_home_in_the_programs_folder_is_refused():
    with pytest.raises(UserError, match="--home"):
        prepare_home(Disk(), os.path.join(ROOT, "state"))
    assert not os.path.exists(os.path.join(ROOT, "state"))


def test_a_damaged_key_is_refused_and_not_replaced(tmp_path):
    credentials(tmp_path / "home")
    path = tmp_path / "home" / "identity.key"
    path.write_text("damaged")
    with pytest.raises(UserError, match="backup"):
        credentials(tmp_path / "home")
    assert path.read_text() == "damaged"


# -- interpreters meet

MEET = """
import os, socket, sys
sys.path.insert(0, sys.argv[1])
from p2p.disk import Disk
from p2p.trust.identity import Identity
from p2p.trust.networks import Networks
home, role, port = sys.argv[2:5]
identity = Identity.load_or_create(Disk(), home, os.urandom)
networks = Networks(home, identity, Disk(), os.urandom)
if role == "server":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    tls = networks.server_context().wrap_socket(listener.accept()[0], server_side=True)
else:
    plain = socket.create_connection(("127.0.0.1", int(port)), 10)
    tls = networks.client_context(networks.tags[0]).wrap_socket(plain, server_hostname=networks.tags[0].hex())
peer, tag = networks.peer_identity(tls)
tls.sendall(identity.node_id)
assert tls.recv(32) == peer
print("met", flush=True)
"""


@pytest.mark.interop
def test_every_python_here_meets_every_other(tmp_path):
    found = sorted(interpreters().items())
    if len(found) < 2:
        pytest.skip("only one Python of 3.8 or newer is here")
    oldest_newest = [(found[0], other) for other in found] + [(other, found[-1]) for other in found]
    for number, ((_, server), (_, dialler)) in enumerate(oldest_newest):
        def start(python, role, port=""):
            argv = [str(python), "-I", "-c", MEET, ROOT, str(tmp_path / f"{number}-{role}"), role, port]
            return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        one = start(server, "server")
        two = start(dialler, "client", one.stdout.readline().strip())
        for process in (two, one):
            out, err = process.communicate(timeout=20)
            assert process.returncode == 0 and "met" in out, f"{server} and {dialler}: {err}"
