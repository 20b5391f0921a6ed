"""Networks: a CA certificate each, and the TLS contexts in which their members meet.

Everybody whose certificate is signed by a network's CA is in it. The open network `lan` is for whoever shares the
wire: its CA key is derived from a public constant, so that computers which have never met trust each other's keys to
be keys, and no more. What a node may then do is the business of its user's consent.

The server learns from SNI which network is meant. The context it starts from demands a certificate as well: with one
that does not, swapping the context in the SNI callback lets a client without a certificate in (CPython 3.8 to 3.13).
"""

import hashlib
import hmac
import os

from ..errors import PeerError, UserError
from . import ecc, x509

ALPN = "p2pframe/1"
OPEN_NAME = "lan"
OPEN_SECRET = b"p2pframe/1 open network lan"      # public on purpose
MAX_PEM = 16384       # bytes; ours have about 1,000
SEAL = "seal "


class Network:
    """`name`, `kind` (open, shared, managed), `tag` (8 bytes), `ca` (DER), `ca_key` or None, `udp_key` (32 bytes)."""

    def __init__(self, name, kind, tag, ca, ca_key, udp_key):
        self.name = name
        self.kind = kind
        self.tag = tag
        self.ca = ca
        self.ca_key = ca_key
        self._udp = hmac.new(udp_key, b"", hashlib.sha256)

    def mac(self, data) -> bytes:
        """16 bytes: HMAC-SHA256 of a datagram with the network's UDP key, truncated."""
        mac = self._udp.copy()
        mac.update(data)
        return mac.digest()[:16]

    def is_authentic(self, data, mac) -> bool:
        """Is this the MAC of `data`? In constant time."""
        return hmac.compare_digest(self.mac(data), bytes(mac))


def derived_network(name, kind, secret) -> Network:
    """The network that everybody with `secret` is in."""
    ca_key = ecc.derive_private_key(secret, "ca-p256")
    return Network(name, kind, ecc.hkdf_sha256(secret, b"p2pframe/1 net-tag", 8), x509.make_ca(ca_key), ca_key,
                   ecc.hkdf_sha256(secret, b"p2pframe/1 udp-mac", 32))


def open_network() -> Network:
    """The network `lan`."""
    return derived_network(OPEN_NAME, "open", OPEN_SECRET)


class Networks:
    """The networks this node is in, and its credentials in each. Offers what channels ask of credentials.

    Making one looks at the certificates' files, or makes them, and raises UserError; `ssl` waits for the first context.
    """

    def __init__(self, home, identity, disk, entropy):
        self._folder = os.path.join(home, "networks")
        self._identity = identity
        self._disk = disk
        self._entropy = entropy
        self._by_tag = {}       # in the order in which they were joined
        self._files = {}        # tag -> the PEM with this node's key and its certificate there
        self._contexts = {}     # (tag, is it for accepting) -> context; None -> the one that accepting starts from
        self._tags = {}         # context -> tag
        self._join(open_network())

    def _join(self, network):
        # The file is looked at now: with the first connection it would be too late to tell a person what is wrong with it.
        self._files[network.tag] = self._certificate_file(network)
        self._by_tag[network.tag] = network

    def all(self) -> list:
        """All networks, in the order in which they were joined."""
        return list(self._by_tag.values())

    @property
    def tags(self) -> list:
        """Their tags."""
        return list(self._by_tag)

    def by_tag(self, tag):
        """The network with this tag, or None."""
        return self._by_tag.get(tag)

    def server_context(self):
        """For accepting: SNI picks the network. It refuses names it does not know."""
        if None not in self._contexts:
            for network in self.all():
                self._context(network, True)
            base = self._make_context(self.all()[0], is_server=True)
            base.sni_callback = self._pick
            self._contexts[None] = base
        return self._contexts[None]

    def client_context(self, tag):
        """For dialling in the network with this tag."""
        return self._context(self._by_tag[tag], False)

    def _context(self, network, is_server):
        key = (network.tag, is_server)
        if key not in self._contexts:
            self._contexts[key] = self._make_context(network, is_server)
        return self._contexts[key]

    def _pick(self, sock, server_name, _context):
        import ssl
        try:
            network = self._by_tag.get(bytes.fromhex(server_name or ""))
        except ValueError:
            network = None
        if network is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        sock.context = self._context(network, True)
        return None

    def _make_context(self, network, is_server):
        import ssl
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False          # the key is the identity, not a name
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=x509.to_pem(network.ca))
        context.load_cert_chain(self._files[network.tag])
        context.set_alpn_protocols([ALPN])
        if is_server:
            context.num_tickets = 0             # no resumption: each connection proves itself
        self._tags[context] = network.tag
        return context

    def _certificate_file(self, network):
        """The PEM with this node's key and its certificate in a network; made once."""
        path = os.path.join(self._folder, f"{network.tag.hex()}.pem")
        if self._disk.exists(path):
            from .identity import check_private
            check_private(self._disk, path)
            known = self._disk.read_bytes(path, MAX_PEM).decode("ascii", "replace")
            text = known.rpartition(SEAL)[0]
            if text.startswith(self._identity.key.to_pem()) and known == text + _seal(network, text):
                return path
        leaf = x509.make_leaf(network.ca_key, self._identity.key.public, self._entropy(16))
        self._disk.make_dir(self._folder)
        text = self._identity.key.to_pem() + x509.to_pem(leaf)
        self._disk.write_atomic(path, (text + _seal(network, text)).encode("ascii"))
        return path

    def peer_identity(self, sock):
        """(node ID, network tag) of the other end of a finished handshake. Raises PeerError."""
        if sock.version() != "TLSv1.3":
            raise PeerError(f"speaks {sock.version()}, TLSv1.3 is wanted", "tls-version")
        if sock.selected_alpn_protocol() != ALPN:
            raise PeerError("speaks another protocol over TLS", "alpn")
        certificate = sock.getpeercert(binary_form=True)
        if not certificate:
            raise PeerError("shows no certificate", "certificate")
        return ecc.PublicKey.from_spki(x509.spki_of(certificate)).node_id, self._tags[sock.context]


def _seal(network, text):
    # Behind the certificates PEM readers ignore text. A file that is damaged, or made under another CA, is made anew:
    # OpenSSL would load a certificate with a wrong signature, and every peer would then refuse this node.
    return f"{SEAL}{hashlib.sha256(network.ca + text.encode('ascii', 'replace')).hexdigest()}\n"


def check_tls():
    """Raise UserError where this Python cannot do TLS 1.3."""
    try:
        import ssl
    except ImportError:
        ssl = None
    if ssl is None or not ssl.HAS_TLSv1_3:
        has = ssl.OPENSSL_VERSION if ssl else "none"
        raise UserError(f"this Python has no TLS 1.3 (its TLS library: {has}): take a Python 3.8 or newer that is built with "
                        "OpenSSL 1.1.1 or newer, for example from python.org", code="tls")
