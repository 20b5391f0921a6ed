"""One network: a name, a CA certificate, and the key that its datagrams are authenticated with. Pure.

Everybody whose certificate is signed by a network's CA is in it. Three kinds differ in who holds the CA's key:

    open      everybody: it is derived from a public constant. `lan`, and no other
    shared    every member: it is derived from 128 random bits, the code
    managed   its admins: it is random, and the members have a certificate from them

On the wire a network is its tag of 8 bytes; the name is a label that each member may choose. A shared network's tag is
derived from its code; a managed one's from its CA, so that nobody can pass another CA off as that network's.

A shared code is 128 bits and 10 bits that tell a mistake in typing, in base32: NAME:xxxx-xxxx-xxxx-xxxx-xxxx-xxxx-xxxx.
There is no passphrase instead: what members say on the wire would let anybody test guesses (docs/security.md).

The file of a network holds all of this and a hash over it: a file that a disk has damaged must not pass for another
network, in which this node would be alone.
"""

import base64
import hashlib
import hmac
import json

from ..errors import PeerError, UsageError, UserError
from ..sync.manifest import app_name_fault
from ..text import clean
from . import ecc, x509

OPEN, SHARED, MANAGED = KINDS = ("open", "shared", "managed")
OPEN_NAME = "lan"
OPEN_SECRET = b"p2pframe/1 open network lan"      # public on purpose
TAG_SIZE, UDP_KEY_SIZE, SECRET_SIZE = 8, 32, 16
CODE_SIZE = 28        # characters of a shared code: 26 of 128 bits, and 2 that check them
MAX_FILE = 1 << 21    # bytes of a network's file: 1,000 denied IDs, and the lists that say so


class BadNetwork(UserError):
    """A file that is no network; the message says what is the matter with it."""

    def __init__(self, message):
        super().__init__(message, code="network")


class Network:
    """`name`, `kind`, `tag`, `ca` (DER), `ca_key` or None, `udp_key`; `denied`: IDs of nodes that are in it no longer,
    as of `epoch`; `lists`: the signed lists that say so (denial.py); `secret`: what a shared one is derived from."""

    FIELDS = ("name", "kind", "tag", "ca", "ca_key", "udp_key", "epoch", "denied", "secret", "lists")

    def __init__(self, name, kind, tag, ca, ca_key, udp_key, epoch=0, denied=frozenset(), secret=b"", lists=()):
        self.name = name
        self.kind = kind
        self.tag = tag
        self.ca = ca
        self.ca_key = ca_key
        self.udp_key = udp_key
        self.epoch = epoch
        self.denied = frozenset(denied)
        self.secret = secret
        self.lists = tuple(lists)
        self._udp = hmac.new(udp_key, b"", hashlib.sha256)

    @property
    def ca_public(self) -> ecc.PublicKey:
        """The CA's public key."""
        return ecc.PublicKey.from_spki(x509.spki_of(self.ca))

    @property
    def is_admin(self) -> bool:
        """May this node let others in and remove them? In a shared network everybody could let them in again."""
        return self.kind == MANAGED and self.ca_key is not None

    def changed(self, **fields) -> "Network":
        """The same network with some fields changed."""
        return Network(**dict({field: getattr(self, field) for field in self.FIELDS}, **fields))

    def issue(self, spki, serial16) -> bytes:
        """The certificate (DER) of a member with this public key; 16 random bytes. Takes about 5 ms; needs the CA's key."""
        return x509.make_leaf(self.ca_key, ecc.PublicKey.from_spki(spki), serial16)

    def certifies(self, certificate, node_id) -> bool:
        """Is this (DER, from anybody) the certificate of that node in this network? Takes about 5 ms."""
        try:
            return hashlib.sha256(x509.spki_of(certificate)).digest() == node_id and x509.is_leaf(certificate, self.ca)
        except PeerError:
            return False

    def mac(self, data) -> bytes:
        """16 bytes: HMAC-SHA256 of a datagram with the network's UDP key, truncated."""
        mac = self._udp.copy()
        mac.update(data)
        return mac.digest()[:16]

    def is_authentic(self, data, mac) -> bool:
        """Is this the MAC of `data`? In constant time."""
        return hmac.compare_digest(self.mac(data), bytes(mac))

    @property
    def code(self) -> str:
        """What others join a shared network with."""
        text = base64.b32encode(self.secret).decode("ascii").rstrip("=").lower() + _check(self.name, self.secret)
        return f"{self.name}:" + "-".join(text[at:at + 4] for at in range(0, CODE_SIZE, 4))


# -- making one

def derived_network(name, kind, secret) -> Network:
    """The network that everybody with `secret` is in. Takes about 5 ms."""
    ca_key = ecc.derive_private_key(secret, "ca-p256")
    return Network(name, kind, ecc.hkdf_sha256(secret, b"p2pframe/1 net-tag", TAG_SIZE), x509.make_ca(ca_key), ca_key,
                   ecc.hkdf_sha256(secret, b"p2pframe/1 udp-mac", UDP_KEY_SIZE), secret=secret)


def open_network() -> Network:
    """The network `lan`."""
    return derived_network(OPEN_NAME, OPEN, OPEN_SECRET)


def shared_network(name, secret) -> Network:
    """The shared network of a code's 16 bytes, random where it is founded."""
    return derived_network(name, SHARED, secret)


def managed_network(name, entropy) -> Network:
    """A new managed network; who founds it is its admin. Takes about 10 ms."""
    ca_key = ecc.PrivateKey.generate(entropy)
    ca = x509.make_ca(ca_key)
    return Network(name, MANAGED, managed_tag(ca), ca, ca_key, entropy(UDP_KEY_SIZE))


def managed_tag(ca) -> bytes:
    """The tag of a managed network, from its CA's certificate. Raises PeerError for what is no certificate."""
    return ecc.hkdf_sha256(x509.spki_of(ca), b"p2pframe/1 net-tag", TAG_SIZE)


def check_name(name):
    """Raise UserError unless a network can be called so: as an application, and no name that commands mean otherwise."""
    fault = "a network has a name" if not name else app_name_fault(name)
    if fault:
        raise UserError(f"{clean(name)}: not a name for a network: {fault}; choose another", code="name")


# -- shared codes

def _check(name, secret):
    # The name is in it: whoever mistypes that would look at a network of one under a name that nobody else uses
    digest = hashlib.sha256(b"p2pframe/1 code\n" + name.lower().encode("utf-8", "replace") + b"\n" + secret).digest()
    return base64.b32encode(digest[:5]).decode("ascii").lower()[:2]


def is_shared_code(word) -> bool:
    """Is this meant as the code of a shared network, and not as one for a managed one? The two differ in length."""
    return ":" in word or len(_letters(word)) > CODE_SIZE // 2


def _letters(word):
    return "".join(char for char in word.lower() if char not in " -")


def read_shared_code(word):
    """(name, 16 bytes) of a shared code as a person typed it: case, spaces and dashes do not count. Raises UsageError."""
    name, _, code = word.strip().rpartition(":")
    letters = _letters(code)
    if not name or len(letters) != CODE_SIZE:
        raise UsageError(f"a shared network's code is NAME:CODE with {CODE_SIZE} letters and digits, as `network code NAME` shows it")
    try:
        secret = base64.b32decode(letters[:26].upper() + "======")
    except ValueError:
        raise UsageError("a code has the letters a to z and the digits 2 to 7; look at it again")
    is_canonical = base64.b32encode(secret).decode("ascii").rstrip("=").lower() == letters[:26]
    if not is_canonical or letters[26:] != _check(name, secret):
        raise UsageError("there is a mistake in this code or in the name before it: look at both again, as `network code NAME` shows them")
    check_name(name)
    return name, secret


# -- on disk

def to_file(network, leaf, place) -> bytes:
    """The file of a network: this node's certificate in it (DER), and its place among the others."""
    fields = {
        "name": network.name, "kind": network.kind, "tag": network.tag.hex(), "ca": network.ca.hex(),
        "ca_key": f"{network.ca_key.d:064x}" if network.ca_key else "", "udp_key": network.udp_key.hex(), "epoch": network.epoch,
        "denied": [node_id.hex() for node_id in sorted(network.denied)], "secret": network.secret.hex(), "leaf": leaf.hex(),
        "lists": [data.hex() for data in network.lists],
        "place": place}
    fields["sum"] = _sum(fields)
    return json.dumps(fields, indent=1).encode("ascii") + b"\n"


def from_file(data):
    """(network, leaf, place) of a file. Raises BadNetwork."""
    try:
        fields = json.loads(data.decode("ascii"))
        if fields.pop("sum") != _sum(fields):
            raise BadNetwork("it is damaged")
        ca_key = ecc.PrivateKey(int(fields["ca_key"], 16)) if fields["ca_key"] else None
        binary = {name: bytes.fromhex(fields[name]) for name in ("tag", "ca", "udp_key", "secret", "leaf")}
        network = Network(fields["name"], fields["kind"], binary["tag"], binary["ca"], ca_key, binary["udp_key"], fields["epoch"],
                          [bytes.fromhex(node_id) for node_id in fields["denied"]], binary["secret"],
                          [bytes.fromhex(data) for data in fields["lists"]])
        if app_name_fault(network.name) or network.kind not in (SHARED, MANAGED) or len(network.tag) != TAG_SIZE or network.epoch < 0:
            raise BadNetwork("it is not a network of this program")
        return network, binary["leaf"], int(fields["place"])
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError):
        raise BadNetwork("it cannot be read as a network")


def _sum(fields):
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode("ascii")).hexdigest()
