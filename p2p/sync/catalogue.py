"""Who offers which application, and who holds which version.

An offer says: the owner of this key publishes this version under this name, in this network. The key signs it, so any
node that holds the version may pass the offer on, and nobody can make one in another's name. Of one name, publisher
and network the highest serial counts; a version of all zeros withdraws. Withdrawals are kept and passed on, or the
offer would come back from whoever had missed it.

A holding is what a connected node says of itself, so it is believed of that node only, and forgotten with it.

Names are not unique: anybody may offer a "chat". `newest` decides which one a bare name means without ever letting a
stranger's newer "chat" slip in: this node's own; else that of the publisher from whom it was installed here (`pin`,
also while that publisher offers none); else the only one there is; else none, and the person must say whose. The
versions that are installed do not tell whose they are: anybody can offer the very same files, and then others.

All tables are bounded, since in the open network anybody can invent publishers. When they are full, what a connected
publisher offers itself stays before what others hold, and that before what nobody holds (`_rank`).

Pure: a signature takes about 10 ms to check, so whoever calls `add` has asked `is_news` first, then
`Offer.is_authentic` in a worker thread.
"""

import hashlib
import struct
from collections import OrderedDict

from .. import limits
from ..errors import PeerError
from ..trust.ecc import PublicKey
from .manifest import app_name_fault

WITHDRAWN = bytes(32)               # the version of an offer that ends the earlier ones
PURPOSE = b"p2pframe/1 offer\n"     # signed with the rest, so that no other signature of this key passes for an offer
PUBLIC_KEY_SIZE, SIGNATURE_SIZE = 91, 64
MAX_SHOWN = 4 * limits.MAX_OFFERS   # versions of which is remembered in which networks they were offered


class Offer:
    """One signed offer. The fields are those of proto's OfferRow; `publisher` is a public key, its hash a node ID; `network` a tag."""

    FIELDS = ("name", "publisher", "version", "serial", "network", "files", "bytes", "signature")
    __slots__ = FIELDS + ("publisher_id",)

    def __init__(self, name, publisher, version, serial, network, files, bytes, signature):
        self.name = name
        self.publisher = publisher
        self.version = version
        self.serial = serial
        self.network = network
        self.files = files
        self.bytes = bytes
        self.signature = signature
        self.publisher_id = hashlib.sha256(publisher).digest()

    @classmethod
    def signed(cls, key, name, version, serial, network, files, size) -> "Offer":
        """An offer by the owner of this private key. Takes about 10 ms."""
        offer = cls(name, key.public.spki, version, serial, network, files, size, b"")
        offer.signature = key.sign(offer.signed_bytes())
        return offer

    def signed_bytes(self) -> bytes:
        """What the signature covers: every field, each with one possible encoding."""
        name = self.name.encode("utf-8")
        return b"".join([
            PURPOSE, struct.pack("<H", len(name)), name, self.publisher, self.version, struct.pack("<Q", self.serial),
            self.network, struct.pack("<IQ", self.files, self.bytes)])

    def is_authentic(self) -> bool:
        """Did the publisher sign this? Takes about 10 ms."""
        try:
            return PublicKey.from_spki(self.publisher).verify(self.signed_bytes(), self.signature)
        except PeerError:
            return False              # not a key at all

    @property
    def is_withdrawn(self) -> bool:
        """Does it say that the application is offered no longer?"""
        return self.version == WITHDRAWN

    def row(self) -> dict:
        """The fields, for proto."""
        return {field: getattr(self, field) for field in self.FIELDS}

    def fault(self) -> str:
        """Why this offer cannot be taken, whoever signed it; "" where it can."""
        if app_name_fault(self.name):
            return "not a name for an application"
        if (len(self.network), len(self.publisher), len(self.version), len(self.signature)) != (8, PUBLIC_KEY_SIZE, 32, SIGNATURE_SIZE):
            return "a network, key, version or signature of a wrong length"
        if self.files > limits.MAX_FILES or self.bytes > limits.MAX_APP_BYTES:
            return "more files or bytes than an application may have"
        return ""

    @property
    def age(self):
        """Of two offers of one name, publisher and network the larger counts, also where both have one serial."""
        return self.serial, self.version


class Catalogue:
    """All offers and holdings that this node knows. `me`: its own ID."""

    def __init__(self, me=None):
        self._me = me
        self._offers = {}           # (name, publisher ID, network) -> Offer
        self.pins = {}              # name -> ID of the publisher from whom it was installed
        self._signatures = set()    # of all of them
        self._shown = OrderedDict() # version -> networks in which it is served, also if another is newer now: it may be on its way
        self._published = {}        # publisher ID -> {key of _offers: None}
        self._lowest = None         # the lowest rank among _offers; None: to be looked up
        self._held = {}             # node ID -> sorted (name, version)
        self._holders = {}          # (name, version) -> {node ID: None}
        self._holdings = 0
        self.edition = 0            # another one whenever offers or this node's own holdings have changed

    # -- offers

    def is_news(self, offer: Offer) -> bool:
        """Is its signature worth a look?"""
        if offer.fault():
            return False
        known = self._offers.get((offer.name, offer.publisher_id, offer.network))
        if known is not None:
            return offer.age > known.age
        return self._place_for(offer) is not False

    def is_known(self, signature: bytes) -> bool:
        """Is the offer with this signature in the table? Asked first: whoever tells of one offer tells of all others again."""
        return signature in self._signatures

    def add(self, offer: Offer) -> bool:
        """Take an offer whose signature was checked. False where it is no news or there is no room for it."""
        if not self.is_news(offer):
            return False
        key = (offer.name, offer.publisher_id, offer.network)
        if key not in self._offers:
            victim = self._place_for(offer)
            if victim is not None:
                self._drop(victim)
            self._published.setdefault(offer.publisher_id, {})[key] = None
        else:
            self._signatures.discard(self._offers[key].signature)
        self._offers[key] = offer
        # Not on anybody's word: who knows a version of another network could offer it here, and would be served
        if not offer.is_withdrawn and offer.publisher_id in (self._me, self.pins.get(offer.name)):
            self.serve(offer.version, offer.network)
        self._signatures.add(offer.signature)
        self._lowest = None
        self.edition += 1
        return True

    def offers(self, networks=None) -> list:
        """All offers, withdrawals too, sorted; with `networks`, those of these only (what a peer in them may hear)."""
        return [self._offers[key] for key in sorted(self._offers) if networks is None or key[2] in networks]

    def serve(self, version: bytes, network: bytes):
        """This node has shared this version in a network, or wanted it from there: its members may have it from here."""
        self._shown.setdefault(version, set()).add(network)
        self._shown.move_to_end(version)
        if len(self._shown) > MAX_SHOWN:
            self._shown.popitem(last=False)

    def is_shown(self, version: bytes, networks) -> bool:
        """Is this version served in one of these networks? Whoever is in it may fetch it."""
        return not self._shown.get(version, set()).isdisjoint(networks)

    def expel(self, publisher_id: bytes, network: bytes):
        """What this publisher offers in a network counts no more; other publishers' stays."""
        for key in [key for key in self._published.get(publisher_id, ()) if key[2] == network]:
            self._drop(key)
        self._lowest = None
        self.edition += 1

    def leave(self, network: bytes):
        """This node is not in that network any more: forget what was offered there."""
        for key in [key for key in self._offers if key[2] == network]:
            self._drop(key)
        for networks in self._shown.values():
            networks.discard(network)
        self._lowest = None
        self.edition += 1

    def serial(self, name: str, publisher_id: bytes) -> int:
        """The highest serial of this publisher's offers of a name; 0 where none is known."""
        return max((offer.serial for offer in self._of(name, publisher_id)), default=0)

    def pin(self, name: str, publisher_id):
        """From now on the bare name means this publisher's (None: anybody's). Whoever installs it says so, and keeps `pins`."""
        self.pins.pop(name, None)
        if publisher_id is not None:
            self.pins[name] = publisher_id

    def publishers(self, name: str) -> list:
        """IDs of those who offer an application of this name now, sorted."""
        return sorted({offer.publisher_id for offer in self._offers.values()
                       if offer.name == name and not offer.is_withdrawn})

    def newest(self, name: str, publisher_id=None, networks=None):
        """The newest Offer of a publisher, or of the one that must be meant, in these networks (tags) or in any; None where there is none
        or no telling."""
        if publisher_id is None:
            publisher_id = self._meant(name)
        offers = [offer for offer in self._of(name, publisher_id)
                  if not offer.is_withdrawn and (networks is None or offer.network in networks)]
        return max(offers, key=lambda offer: offer.age, default=None)

    def offered_in(self, name: str, publisher_id: bytes) -> list:
        """Tags of the networks in which this publisher offers it now, sorted."""
        return sorted(offer.network for offer in self._of(name, publisher_id) if not offer.is_withdrawn)

    def rows(self, networks=None) -> list:
        """(newest Offer, sorted IDs of its holders) for each name and publisher that offers it now, sorted; in these networks or in any."""
        pairs = sorted({(offer.name, offer.publisher_id) for offer in self._offers.values()
                        if not offer.is_withdrawn and (networks is None or offer.network in networks)})
        newest = [self.newest(name, publisher_id, networks) for name, publisher_id in pairs]
        return [(offer, self.holders(offer.name, offer.version)) for offer in newest]

    # -- holdings

    def holds(self, node_id: bytes, pairs):
        """A node says that it holds these (name, version), and no others any more."""
        self.forget(node_id)
        if len(self._held) >= limits.MAX_MEMBERS and node_id != self._me:
            return
        self._lowest = None
        kept = sorted({(name, version) for name, version in pairs if not app_name_fault(name)})
        if node_id != self._me:
            room = max(0, limits.MAX_HOLDINGS - self._holdings)
            kept = kept[:min(room, limits.MAX_HOLDINGS_NODE)]
        self._held[node_id] = kept
        self.edition += node_id == self._me
        self._holdings += len(kept)
        for pair in kept:
            self._holders.setdefault(pair, {})[node_id] = None

    def forget(self, node_id: bytes):
        """A node is gone: it serves nothing. Its offers stay, others may hold what it published."""
        gone = self._held.pop(node_id, [])
        self._lowest = None
        self._holdings -= len(gone)
        for pair in gone:
            del self._holders[pair][node_id]
            if not self._holders[pair]:
                del self._holders[pair]

    def held_by(self, node_id: bytes) -> list:
        """(name, version) of what a node says it holds, sorted."""
        return self._held.get(node_id, [])

    def holders(self, name: str, version: bytes) -> list:
        """IDs of the nodes that say they hold a version, sorted."""
        return sorted(self._holders.get((name, version), ()))

    # -- how

    def _of(self, name, publisher_id):
        return [self._offers[key] for key in self._published.get(publisher_id, ()) if key[0] == name]

    def _meant(self, name):
        """Whose application a bare name means, or None."""
        publishers = self.publishers(name)
        if self._me in publishers:
            return self._me
        if name in self.pins:
            return self.pins[name]
        return publishers[0] if len(publishers) == 1 else None

    def _rank(self, offer):
        """Which offers stay when there are too many: the highest."""
        if offer.publisher_id == self._me:
            return 3
        if offer.publisher_id in self._held:
            return 2
        return 1 if (offer.name, offer.version) in self._holders else 0

    def _place_for(self, offer):
        """Key of the offer that must go for this new one; None where there is room, False where there will be none."""
        published = self._published.get(offer.publisher_id, ())
        if len(published) >= limits.MAX_OFFERS_PUBLISHER:
            ended = [key for key in published if self._offers[key].is_withdrawn]
            return min(ended, key=lambda key: self._offers[key].age, default=False)
        if len(self._offers) < limits.MAX_OFFERS:
            return None
        if self._lowest is None:       # kept, since a hostile message asks a thousand times in a row
            self._lowest = min(map(self._rank, self._offers.values()))
        if self._rank(offer) <= self._lowest:
            return False
        return next(key for key, other in self._offers.items() if self._rank(other) == self._lowest)

    def _drop(self, key):
        offer = self._offers.pop(key)
        self._signatures.discard(offer.signature)
        del self._published[offer.publisher_id][key]
        if not self._published[offer.publisher_id]:
            del self._published[offer.publisher_id]
