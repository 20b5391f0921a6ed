"""The networks this node is in: their files, its credentials, and the TLS contexts in which their members meet.

The open network `lan` needs no file: its CA key is derived from a public constant, so that computers which have never met
trust each other's keys to be keys, and no more. What a node may then do is the business of its user's consent. Of every
other network there are two files in the home, TAG.json (network.py) and, since OpenSSL wants a path, TAG.pem with this
node's key and its certificate there. The second can be made anew from the first at any time.

The server learns from SNI which network is meant. The context it starts from demands a certificate as well: with one
that does not, swapping the context in the SNI callback lets a client without a certificate in (CPython 3.8 to 3.13).

Networks come and go while the node runs: each accept and each dial asks here, so a network is live with `add` and
closed with `remove`. Whoever else must know is in `on_change`.
"""

import base64
import hashlib
import os

from .. import limits
from ..errors import PeerError, UserError
from . import ecc, x509
from .network import MAX_FILE, OPEN, BadNetwork, from_file, open_network, to_file

ALPN = "p2pframe/1"
MAX_PEM = 16384       # bytes; ours have about 1,000
SEAL = "seal "
LAN_LEFT = "lan-left"                             # this file says that the open network is closed here
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Networks:
    """The networks this node is in, and its credentials in each. Offers what channels ask of credentials.

    Making one looks at the files, or makes them, and raises UserError; `ssl` waits for the first context.
    """

    def __init__(self, home, identity, disk, entropy):
        self._folder = os.path.join(home, "networks")
        self._identity = identity
        self._disk = disk
        self._entropy = entropy
        self._by_tag = {}       # in the order in which they were joined
        self._leaves = {}       # tag -> this node's certificate there, DER
        self._places = {}       # tag -> where it stands in that order
        self._contexts = {}     # (tag, is it for accepting) -> context; None -> the one that accepting starts from
        self._tags = {}         # context -> tag
        self.on_change = []     # callables(): a network was joined, left or changed
        self._load()

    # -- which there are

    def all(self) -> list:
        """All networks, in the order in which they were joined; `lan` is the first."""
        return [self._by_tag[tag] for tag in sorted(self._by_tag, key=self._places.get)]

    @property
    def tags(self) -> list:
        """Their tags."""
        return [network.tag for network in self.all()]

    def by_tag(self, tag):
        """The network with this tag, or None."""
        return self._by_tag.get(tag)

    def by_name(self, name):
        """The network that this node calls so. Raises UserError."""
        for network in self.all():
            if network.name.lower() == name.lower():
                return network
        names = ", ".join(network.name for network in self.all())
        raise UserError(f"{name}: this node is not in such a network; it is in {names}", code="no-such-network")

    def name_of(self, tag) -> str:
        """What this node calls the network with this tag; its tag in hex where it is in no such network."""
        network = self._by_tag.get(tag)
        return network.name if network else tag.hex()

    def leaf(self, tag) -> bytes:
        """This node's certificate (DER) in a network."""
        return self._leaves[tag]

    def is_denied(self, tag, node_id) -> bool:
        """Was this node removed from this network, as far as is known here?"""
        network = self._by_tag.get(tag)
        return network is not None and node_id in network.denied

    # -- joining and leaving

    def check_new(self, name, tag=b""):
        """Raise UserError unless a network of this name (and tag) can be joined."""
        for network in self.all():
            if network.tag == tag:
                raise UserError(f"this node is in that network already, as {network.name}", code="in-network")
            if network.name.lower() == name.lower():
                raise UserError(f"this node is in another network that is called {network.name}: take another name for the new one "
                                f"with --as NAME, or leave that one with `network leave {network.name}`", code="in-network")
        if len(self._by_tag) >= limits.MAX_NETWORKS:
            raise UserError(f"this node is in {limits.MAX_NETWORKS} networks, more it cannot be in: leave one with `network leave NAME`",
                            code="too-many")

    def add(self, network, leaf=None):
        """Be in this network from now on. `leaf`: this node's certificate there, made here where the CA's key is here.

        Raises UserError, and then nothing has changed.
        """
        self.check_new(network.name, network.tag)
        if leaf is None:
            leaf = network.issue(self._identity.spki, self._entropy(16))
        if x509.spki_of(leaf) != self._identity.spki:
            raise UserError(f"{network.name}: the certificate for it is not this node's", code="certificate")
        place = 0 if network.kind == OPEN else max(self._places.values(), default=0) + 1
        self._disk.make_dir(self._folder)
        self._write_pem(network, leaf)
        if network.kind == OPEN:
            self._disk.remove_tree(self._path(LAN_LEFT))
        else:
            self._disk.write_atomic(self._path(f"{network.tag.hex()}.json"), to_file(network, leaf, place))
        self._take(network, leaf, place)
        self._changed()

    def _drop(self, network):
        """Its files and contexts."""
        tag = network.tag
        if network.kind != OPEN:
            self._disk.remove_tree(self._path(f"{tag.hex()}.json"))
        self._disk.remove_tree(self._path(f"{tag.hex()}.pem"))
        del self._by_tag[tag], self._leaves[tag], self._places[tag]
        for key in [key for key in self._contexts if key is not None and key[0] == tag]:
            del self._tags[self._contexts.pop(key)]

    def replace(self, network):
        """The same network with another epoch, deny list or UDP key. It counts from now on; UserError says that it could not be written."""
        self._by_tag[network.tag] = network
        self._changed()
        if network.kind != OPEN:
            data = to_file(network, self._leaves[network.tag], self._places[network.tag])
            self._disk.write_atomic(self._path(f"{network.tag.hex()}.json"), data)

    def remove(self, tag):
        """Be in this network no longer. Raises UserError, also for the last one."""
        network = self._by_tag[tag]
        if len(self._by_tag) == 1:
            raise UserError(f"{network.name} is the only network this node is in: create or join another one first", code="last-network")
        if network.kind == OPEN:
            self._disk.write_atomic(self._path(LAN_LEFT), b"`network join lan` opens it again\n")
        self._drop(network)
        self._changed()

    def _changed(self):
        base = self._contexts.pop(None, None)      # it has a network's CA; each accept asks anew
        self._tags.pop(base, None)
        for callback in list(self.on_change):
            callback()

    def _take(self, network, leaf, place):
        self._by_tag[network.tag] = network
        self._leaves[network.tag] = leaf
        self._places[network.tag] = place

    # -- files

    def _path(self, name):
        return os.path.join(self._folder, name)

    def _load(self):
        names = self._disk.listdir(self._folder) if self._disk.exists(self._folder) else []
        # The files are looked at now: with the first connection it would be too late to tell a person what is wrong with one.
        if LAN_LEFT not in names:
            network = open_network()
            self._take(network, self._certificate(network, None), 0)
        for name in sorted(names):
            if name.endswith(".json"):
                self._load_one(name)
        if not self._by_tag:
            raise UserError(f"this node has left `lan` and is in no other network: remove {self._path(LAN_LEFT)} to be in `lan` again",
                            code="no-network")

    def _load_one(self, name):
        from .identity import check_private
        path = self._path(name)
        check_private(self._disk, path)
        try:
            network, leaf, place = from_file(self._disk.read_bytes(path, MAX_FILE))
            if f"{network.tag.hex()}.json" != name:
                raise BadNetwork("it belongs to another network")
        except BadNetwork as error:
            raise UserError(f"{path}: {error}. Restore it from a backup, or remove it to be in that network no longer", code="network")
        self._take(network, self._certificate(network, leaf), place)

    def _certificate(self, network, leaf):
        """This node's certificate in a network. `leaf` is what the network's file says, or None. Its PEM is made where it is not right."""
        path = self._path(f"{network.tag.hex()}.pem")
        if self._disk.exists(path):
            from .identity import check_private
            check_private(self._disk, path)
            known = self._disk.read_bytes(path, MAX_PEM).decode("ascii", "replace")
            text = known.rpartition(SEAL)[0]
            if text.startswith(self._identity.key.to_pem()) and known == text + _seal(network, text):
                return base64.b64decode("".join(text.partition(BEGIN)[2].partition(END)[0].split()))
        if leaf is None or x509.spki_of(leaf) != self._identity.spki:
            if network.ca_key is None:
                place = self._path(f"{network.tag.hex()}.json")
                raise UserError(f"{place}: the certificate in it is of another identity than this node's: remove the file, and be invited "
                                "anew", code="certificate")
            leaf = network.issue(self._identity.spki, self._entropy(16))
        self._disk.make_dir(self._folder)
        self._write_pem(network, leaf)
        return leaf

    def _write_pem(self, network, leaf):
        text = self._identity.key.to_pem() + x509.to_pem(leaf)
        self._disk.write_atomic(self._path(f"{network.tag.hex()}.pem"), (text + _seal(network, text)).encode("ascii"))

    # -- what channels ask

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
        context.load_cert_chain(self._path(f"{network.tag.hex()}.pem"))
        context.set_alpn_protocols([ALPN])
        if is_server:
            context.num_tickets = 0             # no resumption: each connection proves itself
        self._tags[context] = network.tag
        return context

    def peer_identity(self, sock):
        """(node ID, network tag) of the other end of a finished handshake. Raises PeerError."""
        if sock.version() != "TLSv1.3":
            raise PeerError(f"speaks {sock.version()}, TLSv1.3 is wanted", "tls-version")
        if sock.selected_alpn_protocol() != ALPN:
            raise PeerError("speaks another protocol over TLS", "alpn")
        certificate = sock.getpeercert(binary_form=True)
        if not certificate:
            raise PeerError("shows no certificate", "certificate")
        node_id, tag = ecc.PublicKey.from_spki(x509.spki_of(certificate)).node_id, self._tags.get(sock.context)
        if tag is None:
            raise PeerError("is in a network that this node has just left", "network")
        if self.is_denied(tag, node_id):
            raise PeerError(f"was removed from {self.name_of(tag)}", "removed")
        return node_id, tag


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
