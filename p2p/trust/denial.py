"""Who was removed from a managed network: deny lists that an admin's CA key has signed. Pure: no I/O, no clock.

A list says: of the network with this tag, in this epoch, these nodes are not members any more, and its datagrams have the
key with this hash. It is not a secret, and says nothing to others. Members keep each list that adds something and pass it on;
the union of all counts, so removal only ever grows, in whatever order and however often lists arrive, and nobody who holds
an old list can bring anybody back. Of the epochs the highest counts for the key (of two that are equal the larger hash).

Two admins who cannot reach each other may remove different nodes in the same epoch. An admin who then holds two lists of
which neither contains the other signs their union, in an epoch above both, with a new key. Two who do that at once end
with two lists of the same nodes, of which one is dropped.
"""

import hashlib
import struct
from collections import namedtuple

from .. import limits
from ..errors import PeerError
from .ecc import PrivateKey, PublicKey

PURPOSE = b"p2pframe/1 deny list\n"      # signed with the rest, so that no other signature of this key passes for a list
HEAD = struct.Struct("<8sQ32sI")         # tag, epoch, hash of the UDP key, how many
ID, SIGNATURE = 32, 64
MAX_EPOCH = (1 << 63) - 1                # there is always a next one

State = namedtuple("State", "lists denied epoch key_hash")
State.__doc__ = "What a member holds: the encoded lists, the union of their IDs, and the highest epoch with its key's hash."
NOTHING = State((), frozenset(), 0, bytes(32))


def key_hash(udp_key) -> bytes:
    """What a list says of the key of its epoch's datagrams."""
    return hashlib.sha256(b"p2pframe/1 udp key\n" + udp_key).digest()


class DenyList:
    """`tag`, `epoch`, `denied` (sorted IDs), `key_hash`, and `data`: the signed bytes of them."""

    __slots__ = ("tag", "epoch", "denied", "key_hash", "data")

    def __init__(self, tag, epoch, denied, hashed_key, data):
        self.tag = tag
        self.epoch = epoch
        self.denied = denied
        self.key_hash = hashed_key
        self.data = data

    @classmethod
    def signed(cls, ca_key: PrivateKey, tag, epoch, denied, udp_key) -> "DenyList":
        """A new one. Takes milliseconds."""
        denied = tuple(sorted(set(denied)))
        body = HEAD.pack(tag, epoch, key_hash(udp_key), len(denied)) + b"".join(denied)
        return cls(tag, epoch, denied, key_hash(udp_key), body + ca_key.sign(PURPOSE + body))

    @classmethod
    def decode(cls, data) -> "DenyList":
        """Raises PeerError for all but the one form that `signed` writes; of the signature nothing is said."""
        if len(data) < HEAD.size + ID + SIGNATURE:
            raise PeerError("a deny list that is cut off", "deny-list")
        tag, epoch, hashed_key, count = HEAD.unpack_from(data)
        if not 0 < count <= limits.MAX_DENIED or len(data) != HEAD.size + count * ID + SIGNATURE or not 0 < epoch <= MAX_EPOCH:
            raise PeerError("a deny list whose numbers do not fit", "deny-list")
        denied = tuple(data[at:at + ID] for at in range(HEAD.size, HEAD.size + count * ID, ID))
        if any(first >= second for first, second in zip(denied, denied[1:])):
            raise PeerError("a deny list that is not in order", "deny-list")
        return cls(tag, epoch, denied, hashed_key, bytes(data))

    def is_authentic(self, ca: PublicKey) -> bool:
        """Did the CA's key sign it? Takes milliseconds."""
        return ca.verify(PURPOSE + self.data[:-SIGNATURE], self.data[-SIGNATURE:])

    @property
    def age(self):
        """Of two lists the one with the larger counts for the key."""
        return self.epoch, self.key_hash


def merge(lists, new) -> tuple:
    """Encoded lists as a member keeps them, oldest first, when `new` (an authentic DenyList) has come: the same where it adds nothing."""
    known = [DenyList.decode(data) for data in lists]
    if any(_contains(other, new) for other in known):
        return tuple(lists)
    kept = [other for other in known if not _contains(new, other)] + [new]
    # Lists that add something to each other come from admins alone, and an admin joins them
    kept.sort(key=lambda one: (one.age, one.data))
    return tuple(one.data for one in kept[-limits.MAX_DENY_LISTS:])


def _contains(one, other):
    return other.age <= one.age and set(other.denied) <= set(one.denied)


def state_of(lists, before=frozenset()) -> State:
    """What these encoded lists say together. `before`: IDs that were known as denied, of which the list may be gone."""
    known = [DenyList.decode(data) for data in lists]
    if not known:
        return NOTHING
    last = max(known, key=lambda one: one.age)
    return State(tuple(lists), frozenset(before).union(*(one.denied for one in known)), last.epoch, last.key_hash)


def wants_union(lists) -> bool:
    """Should an admin sign one list for all of these? Only then is there one epoch, and one key, for everybody."""
    known = [DenyList.decode(data) for data in lists]
    return len(known) > 1
