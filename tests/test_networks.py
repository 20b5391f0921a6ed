"""Who gets into a network: members over real sockets, and everybody else refused, each for the right reason.

Every refusal stands beside a twin that differs in one thing and is let in, so that nothing passes here because
the test itself was broken.
"""

import base64
import functools
import hashlib
import os
import socket
import ssl
import subprocess
import sys
import threading

import pytest

from p2p import system
from p2p.disk import Disk
from p2p.errors import PeerError, UserError
from p2p.trust import networks as networks_module
from p2p.trust import x509
from p2p.trust.ecc import BadKey, PrivateKey
from p2p.trust.identity import Identity
from p2p.trust.network import derived_network, open_network
from p2p.trust.networks import ALPN, Networks, check_tls

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAN = open_network()
OTHER = derived_network("other", "shared", b"a secret of others")
KEY = PrivateKey.generate(os.urandom)
# RFC 8410, section 10: a key that TLS 1.3 likes and we do not
ED25519 = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n"
ED25519_SPKI = base64.b64decode("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=")


def credentials(home):
    identity = Identity.load_or_create(Disk(), str(home), os.urandom)
    return Networks(str(home), identity, Disk(), os.urandom), identity


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    """Is in two networks."""
    networks, identity = credentials(tmp_path_factory.mktemp("ann") / "home")
    networks.add(OTHER)
    return networks, identity


@pytest.fixture(scope="module")
def bob(tmp_path_factory):
    return credentials(tmp_path_factory.mktemp("bob") / "home")


class Server:
    """Accepts one connection on a thread, does the handshake, asks who it is, and says welcome."""

    def __init__(self, networks, context=None):
        self.networks = networks
        self.context = context or networks.server_context()
        self.result = None
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        plain, _ = self.socket.accept()
        plain.settimeout(5)
        try:
            with self.context.wrap_socket(plain, server_side=True) as tls:
                self.result = self.networks.peer_identity(tls)
                tls.sendall(b"welcome")
                tls.recv(1)
        except (OSError, PeerError, ValueError) as error:
            self.result = error
            plain.close()

    def outcome(self):
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.socket.close()
        return self.result


def greet(port, context, name):
    """What a client that dials hears: bytes, or the exception."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            with context.wrap_socket(plain, server_hostname=name) as tls:
                return tls.recv(100)
    except (OSError, ValueError) as error:
        return error


def throw(port, data):
    """Plain bytes to a TLS port, and what comes back."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        try:
            plain.sendall(data)
            plain.shutdown(socket.SHUT_WR)
            return plain.recv(100)
        except OSError:
            return b""


def careless(pem, tmp_path, alpn=ALPN, server=False):
    """A context of somebody who checks nothing and shows what is in `pem`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if pem:
        (tmp_path / "shown.pem").write_text(pem)
        context.load_cert_chain(str(tmp_path / "shown.pem"))
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


def certified(network_or_key, key=KEY):
    """The PEM of a key with a leaf under this CA."""
    ca_key = getattr(network_or_key, "ca_key", network_or_key)
    return key.to_pem() + x509.to_pem(x509.make_leaf(ca_key, key.public, os.urandom(16)))


def tampered():
    leaf = bytearray(x509.make_leaf(LAN.ca_key, KEY.public, os.urandom(16)))
    leaf[-1] ^= 1
    return KEY.to_pem() + x509.to_pem(bytes(leaf))


def expired():
    real = x509._VALIDITY
    x509._VALIDITY = real[:15] + b"\x17\x0d200101000000Z"
    try:
        return certified(LAN)
    finally:
        x509._VALIDITY = real


def signed_by_a_member():
    """A leaf as good as any, but signed by another leaf, which is shown too. Who is let in must not let in others."""
    member, newcomer = KEY, PrivateKey.generate(os.urandom)
    real, x509.CA_NAME = x509.CA_NAME, x509.LEAF_NAME
    try:
        below = certified(member, newcomer)
    finally:
        x509.CA_NAME = real
    return below + certified(LAN, member)[len(member.to_pem()):]


def of_another_kind():
    class Key:
        spki = ED25519_SPKI
    return ED25519 + x509.to_pem(x509.make_leaf(LAN.ca_key, Key, os.urandom(16)))


# -- members

@pytest.mark.parametrize("network", [LAN, OTHER], ids=lambda network: network.name)
def test_two_members_meet_and_know_each_other_and_the_network(ann, tmp_path, network):
    bob, bobs = credentials(tmp_path / "home")
    if network is not LAN:
        bob.add(network)
    server = Server(ann[0])
    with socket.create_connection(("127.0.0.1", server.port), 5) as plain:
        with bob.client_context(network.tag).wrap_socket(plain, server_hostname=network.tag.hex()) as tls:
            assert bob.peer_identity(tls) == (ann[1].node_id, network.tag)
            assert tls.recv(7) == b"welcome"
            assert not tls.session.has_ticket and tls.compression() is None
    assert server.outcome() == (bobs.node_id, network.tag)


def test_every_context_demands_a_certificate_strictly_and_tls_1_3(ann):
    contexts = [ann[0].server_context(), ann[0].client_context(LAN.tag), ann[0].client_context(OTHER.tag)]
    for context in contexts + list(ann[0]._contexts.values()):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        assert len(context.get_ca_certs()) == 1


# -- strangers who dial

UNVERIFIED = ssl.SSLCertVerificationError
STRANGERS = {       # (what is shown, the name asked for, how it is refused)
    "wrong network": (lambda: certified(OTHER), LAN.tag.hex(), UNVERIFIED),
    "wrong network, the other way": (lambda: certified(LAN), OTHER.tag.hex(), UNVERIFIED),
    "a stranger's CA": (lambda: certified(PrivateKey.generate(os.urandom)), LAN.tag.hex(), UNVERIFIED),
    "self-signed": (lambda: certified(KEY), LAN.tag.hex(), UNVERIFIED),
    "a CA of its own": (lambda: KEY.to_pem() + x509.to_pem(x509.make_ca(KEY)), LAN.tag.hex(), UNVERIFIED),
    "the network's CA itself": (lambda: LAN.ca_key.to_pem() + x509.to_pem(LAN.ca), LAN.tag.hex(), UNVERIFIED),
    "signed by a member": (signed_by_a_member, LAN.tag.hex(), UNVERIFIED),
    "expired": (expired, LAN.tag.hex(), UNVERIFIED),
    "tampered": (tampered, LAN.tag.hex(), UNVERIFIED),
    "no certificate": (lambda: "", LAN.tag.hex(), "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
    "a key of another kind": (of_another_kind, LAN.tag.hex(), "certificate"),
    "unknown SNI": (lambda: certified(LAN), "00" * 8, "CALLBACK_FAILED"),
    "no SNI": (lambda: certified(LAN), None, "CALLBACK_FAILED"),
    "SNI that is no hex": (lambda: certified(LAN), "example.com", "CALLBACK_FAILED"),
}


def assert_refused(server, how):
    outcome = server.outcome()
    assert isinstance(outcome, (OSError, PeerError)), f"let in: {outcome}"
    assert isinstance(outcome, how) if isinstance(how, type) else outcome.reason == how, repr(outcome)


@pytest.mark.parametrize("network", [LAN, OTHER], ids=lambda network: network.name)
def test_the_twin_of_all_strangers_is_let_in(ann, tmp_path, network):
    server = Server(ann[0])
    assert greet(server.port, careless(certified(network), tmp_path), network.tag.hex()) == b"welcome"
    assert server.outcome() == (KEY.public.node_id, network.tag)


@pytest.mark.parametrize("case", STRANGERS)
def test_a_stranger_is_refused(ann, tmp_path, case):
    pem, name, how = STRANGERS[case]
    server = Server(ann[0])
    assert greet(server.port, careless(pem(), tmp_path), name) != b"welcome"
    assert_refused(server, how)


@pytest.mark.parametrize("alpn", ["h2", None])
def test_a_member_that_speaks_another_protocol_is_refused(ann, tmp_path, alpn):
    server = Server(ann[0])
    assert greet(server.port, careless(certified(LAN), tmp_path, alpn), LAN.tag.hex()) != b"welcome"
    assert_refused(server, "alpn")


def test_a_member_that_speaks_tls_1_2_is_refused(ann, tmp_path):
    context = careless(certified(LAN), tmp_path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = Server(ann[0])
    assert greet(server.port, context, LAN.tag.hex()) != b"welcome"
    assert_refused(server, ssl.SSLError)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n" + bytes(100), bytes(range(1, 256)) * 4, b"",
                                  b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
                         ids=["plaintext", "garbage", "nothing", "half a handshake"])
def test_what_is_not_tls_is_refused_and_the_next_member_let_in(ann, tmp_path, data):
    server = Server(ann[0])
    assert b"welcome" not in throw(server.port, data)
    assert_refused(server, OSError)
    server = Server(ann[0])
    assert greet(server.port, careless(certified(LAN), tmp_path), LAN.tag.hex()) == b"welcome"
    server.outcome()


# -- strangers who are dialled

def test_a_member_refuses_servers_that_are_not_of_its_network(bob, tmp_path):
    mine = bob[0].client_context(LAN.tag)
    for pem in (certified(OTHER), certified(PrivateKey.generate(os.urandom)), LAN.ca_key.to_pem() + x509.to_pem(LAN.ca),
                signed_by_a_member(), expired(), tampered()):
        server = Server(bob[0], careless(pem, tmp_path, server=True))
        assert isinstance(greet(server.port, mine, LAN.tag.hex()), ssl.SSLCertVerificationError)
        server.outcome()


def test_a_member_refuses_a_server_that_speaks_tls_1_2(bob, tmp_path):
    context = careless(certified(LAN), tmp_path, server=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = Server(bob[0], context)
    assert isinstance(greet(server.port, bob[0].client_context(LAN.tag), LAN.tag.hex()), ssl.SSLError)
    server.outcome()


# -- the second line: what peer_identity sees when the contexts have let somebody through

def seen_by(networks, context, tmp_path, alpn=ALPN, pem=""):
    server = Server(networks, context)
    greet(server.port, careless(pem, tmp_path, alpn), LAN.tag.hex())
    return server.outcome()


def test_without_the_contexts_rules_each_check_still_refuses(ann, tmp_path):
    (tmp_path / "server").mkdir()
    lax = functools.partial(careless, certified(LAN), tmp_path / "server", server=True)
    outcome = seen_by(ann[0], lax(), tmp_path)
    assert isinstance(outcome, PeerError) and outcome.reason == "certificate"
    outcome = seen_by(ann[0], lax(), tmp_path, alpn="h2")
    assert isinstance(outcome, PeerError) and outcome.reason == "alpn"
    old = lax()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    outcome = seen_by(ann[0], old, tmp_path)
    assert isinstance(outcome, PeerError) and outcome.reason == "tls-version"


def test_a_client_without_a_certificate_passes_a_swapped_context_if_its_base_is_lax(ann, tmp_path):
    """The trap that the base context avoids: here it is sprung, and only `peer_identity` refuses."""
    server = ann[0].server_context()
    trap = ann[0]._make_context(LAN, is_server=True)
    trap.verify_mode = ssl.CERT_NONE
    trap.sni_callback = ann[0]._pick
    outcome = seen_by(ann[0], trap, tmp_path)
    assert isinstance(outcome, PeerError) and outcome.reason == "certificate"
    assert isinstance(seen_by(ann[0], server, tmp_path), ssl.SSLError)


def test_a_certified_key_off_the_curve_is_no_identity(ann):
    leaf = x509.make_leaf(LAN.ca_key, KEY.public, os.urandom(16))
    spoiled = leaf.replace(KEY.public.spki, KEY.public.spki[:-1] + bytes([KEY.public.spki[-1] ^ 1]))

    class Sock:
        context = ann[0].client_context(LAN.tag)
        version = staticmethod(lambda: "TLSv1.3")
        selected_alpn_protocol = staticmethod(lambda: ALPN)
        getpeercert = staticmethod(lambda binary_form: spoiled)
    with pytest.raises(BadKey):
        ann[0].peer_identity(Sock)


# -- networks

def test_the_open_network_has_these_bytes_on_every_computer():
    """Another tag, CA or MAC is another network: nodes of two releases would not see each other."""
    assert LAN.tag.hex() == "f762ef0b1095b6c5"
    assert hashlib.sha256(LAN.ca).hexdigest() == "25497e29568e9dc9a62b0991e0245487b8e89e6e3c62fe18bc2981e41063d2f2"
    assert LAN.mac(b"data").hex() == "40ccf06dc7b40587d77b3e6b1f12f735"


def test_a_mac_fits_its_data_and_network_alone():
    mac = LAN.mac(b"data")
    assert len(mac) == 16 and LAN.is_authentic(b"data", mac) and LAN.is_authentic(memoryview(b"data"), memoryview(mac))
    for wrong in (b"", mac[:15], mac + b"\0", bytes(16), mac[:-1] + bytes([mac[-1] ^ 1])):
        assert not LAN.is_authentic(b"data", wrong)
    assert not LAN.is_authentic(b"date", mac) and not OTHER.is_authentic(b"data", mac)


# -- the certificate's file

def pem_of(home):
    credentials(home)
    [path] = (home / "networks").glob("*.pem")
    return path


def test_a_certificate_is_made_once_and_again_when_the_key_is_another(tmp_path):
    before = pem_of(tmp_path).read_bytes()
    assert pem_of(tmp_path).read_bytes() == before
    (tmp_path / "identity.key").unlink()
    assert pem_of(tmp_path).read_bytes() != before


def test_a_certificate_under_another_ca_is_made_anew(tmp_path, monkeypatch):
    before = pem_of(tmp_path).read_bytes()
    reborn = derived_network("lan", "open", b"another secret")
    reborn.tag = LAN.tag
    monkeypatch.setattr(networks_module, "open_network", lambda: reborn)
    assert pem_of(tmp_path).read_bytes() != before


@pytest.mark.parametrize("damage", ["cut off", "empty", "one character", "no certificate", "not text"])
def test_a_damaged_certificate_is_made_anew(tmp_path, damage):
    path = pem_of(tmp_path)
    whole = path.read_bytes()
    at = whole.rindex(b"-----END") - 10        # in the signature: OpenSSL loads it without a word
    path.write_bytes({"cut off": whole[:-30], "empty": b"", "not text": whole[:-70] + b"\xff" * 70,
                      "one character": whole[:at] + (b"A" if whole[at:at + 1] != b"A" else b"B") + whole[at + 1:],
                      "no certificate": KEY.to_pem().encode() + whole[whole.rindex(b"seal "):]}[damage])
    networks, identity = credentials(tmp_path)
    server = Server(networks)
    assert greet(server.port, networks.client_context(LAN.tag), LAN.tag.hex()) == b"welcome"
    assert server.outcome() == (identity.node_id, LAN.tag)
    assert path.read_bytes() != whole


@pytest.mark.skipif(system.WINDOWS, reason="POSIX modes")
def test_a_certificates_file_that_others_can_read_is_refused_since_the_key_is_in_it(tmp_path):
    pem_of(tmp_path).chmod(0o640)
    with pytest.raises(UserError, match="chmod 600") as caught:
        credentials(tmp_path)
    assert "\n" not in str(caught.value)


# -- the Python underneath

def test_a_python_without_tls_1_3_is_refused_with_what_to_take(monkeypatch):
    check_tls()
    monkeypatch.setattr(ssl, "HAS_TLSv1_3", False)
    with pytest.raises(UserError, match="take a Python") as caught:
        check_tls()
    assert ssl.OPENSSL_VERSION in str(caught.value) and "\n" not in str(caught.value)


def test_a_python_without_ssl_is_refused_with_what_to_take(monkeypatch):
    monkeypatch.setitem(sys.modules, "ssl", None)
    with pytest.raises(UserError, match="take a Python"):
        check_tls()


LAZY = """
import os, sys
from p2p.disk import Disk
from p2p.trust.identity import Identity
from p2p.trust.networks import Networks
networks = Networks(sys.argv[1], Identity.load_or_create(Disk(), sys.argv[1], os.urandom), Disk(), os.urandom)
assert "ssl" not in sys.modules
networks.server_context()
assert "ssl" in sys.modules
"""


def test_ssl_is_loaded_by_the_first_context_and_not_before(tmp_path):
    subprocess.run([sys.executable, "-S", "-E", "-B", "-c", LAZY, str(tmp_path / "home")], cwd=ROOT, check=True)
