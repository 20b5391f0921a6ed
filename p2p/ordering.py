"""One order for all: messages that every instance of a session gets in the same order, and a state they share.

A fixed sequencer (Défago, Schiper and Urbán, "Total order broadcast and multicast algorithms", ACM Computing Surveys 36:4,
2004): whoever has something to say proposes it to the host, which numbers it and tells everybody, itself and the proposer
included. The links keep their order, so what an instance has is always the first part of what the host has numbered.

Wires break and are made again, with what was under way on them lost. So a follower says on each new link how far it has come;
the host, which keeps what not everybody has confirmed, sends the rest, and the follower proposes again what has not come back.
The host knows the serial number of each proposer's last one, so none is numbered twice. Who comes too late for that (it had
left, or joins now) gets the state as it is now instead.

Whoever proposes more than WINDOW bytes that not everybody has confirmed must wait: the slowest sets the pace, since what it has
not confirmed is kept for it.

The shared state is a dict that changes by such messages alone, hence in the same order everywhere. A change that would make it
larger than MAX_SHARED is no change, for all alike.

No socket and no clock: calls go in, entries come out, and whoever carries them is in shared.py.
"""

import struct
from collections import OrderedDict, deque, namedtuple

from . import limits
from .errors import PeerError
from .fields import ANYTHING, TYPES

MESSAGE, CHANGE = 0, 1                 # kinds of entries: an application's message; a change of the shared state
WINDOW = limits.MAX_BUFFERED           # bytes
ENTRY = 512                            # bytes that an entry takes besides its fields

Entry = namedtuple("Entry", "number sender serial kind schema fields")
_KEY = TYPES[str]


class Sequencer:
    """The host's part. Peers are whatever the caller calls them by; nothing is sent here."""

    def __init__(self):
        self.number = 0                # of the last entry
        self._serials = {}             # sender -> serial of its last entry
        self._confirmed = {}           # follower -> number up to which it has everything
        self._log = deque()            # entries that somebody has not confirmed
        self._owed = {}                # sender -> bytes of these that are its own
        self._lost = set()             # followers with a new link, on which they have not said yet how far they are
        self._early = []               # what was proposed before it began
        self._has_begun = False

    def begin(self):
        """Number from now on; the entries that were proposed before."""
        self._has_begun = True
        early, self._early = self._early, []
        for entry in early:
            self._owed[entry.sender] -= len(entry.fields) + ENTRY
        return [entry for entry in (self.propose(*what[1:]) for what in early) if entry]

    @property
    def followers(self):
        """Who gets each entry, in the order in which they came."""
        return [peer for peer in self._confirmed if peer not in self._lost]

    @property
    def stable(self):
        """The number up to which everybody has everything."""
        return min(self._confirmed.values(), default=self.number)

    def propose(self, sender, serial, kind, schema, fields):
        """The Entry that this becomes, or None: it is one already, or none has a number yet. PeerError for a sender that does
        not wait for the others."""
        if serial <= self._serials.get(sender, 0):
            return None
        if self._owed.get(sender, 0) > 2 * WINDOW:
            raise PeerError("proposes more than the others can read", "limit")
        if not self._has_begun:
            self._early.append(Entry(0, sender, serial, kind, schema, fields))
            self._owed[sender] = self._owed.get(sender, 0) + len(fields) + ENTRY
            return None
        self._serials[sender] = serial
        self.number += 1
        entry = Entry(self.number, sender, serial, kind, schema, fields)
        if self._confirmed:
            self._log.append(entry)
            self._owed[sender] = self._owed.get(sender, 0) + len(fields) + ENTRY
        return entry

    def follow(self, peer, last):
        """`peer` has everything up to `last` (0: nothing). The entries that it lacks; None: too many, it needs the state."""
        before = self._confirmed.pop(peer, None)
        self._lost.discard(peer)
        oldest = self._log[0].number if self._log else self.number + 1
        if last > self.number:
            raise PeerError("confirms what was never said", "order")
        is_complete = last >= oldest - 1 and (last > 0 or before is not None or self.number == 0)
        self._confirmed[peer] = last if is_complete else self.number
        entries = [entry for entry in self._log if entry.number > last] if is_complete else None
        self._trim()
        return entries

    def confirm(self, peer, last):
        """`peer` has everything up to here; True if that makes more stable for all. PeerError for what cannot be."""
        known = self._confirmed.get(peer)
        if known is None or last <= known:
            return False
        if last > self.number:
            raise PeerError("confirms what was never said", "order")
        before = self.stable
        self._confirmed[peer] = last
        self._trim()
        return self.stable > before

    def lost(self, peer):
        """The wire to it broke: it gets nothing before it says how far it has come; that is kept for it."""
        self._lost.add(peer)

    def left(self, peer):
        """It is gone: nothing is kept for it. Its serials stay, since it may be back."""
        self._confirmed.pop(peer, None)
        self._lost.discard(peer)
        self._trim()

    def serial_of(self, sender):
        """Of its last entry."""
        return self._serials.get(sender, 0)

    def _trim(self):
        stable = self.stable
        while self._log and self._log[0].number <= stable:
            entry = self._log.popleft()
            self._owed[entry.sender] -= len(entry.fields) + ENTRY


class Follower:
    """Everybody's part, the host's too: what was proposed here and has not come back, and how far this one has come."""

    def __init__(self, me):
        self._me = me
        self._serial = 0
        self._pending = OrderedDict()  # serial -> (kind, schema, fields)
        self._unstable = deque()       # (number, bytes) of own entries that not everybody has
        self._bytes = 0
        self.last = 0                  # number of the last entry that came

    def propose(self, kind, schema, fields):
        """The serial under which it is proposed."""
        self._serial += 1
        self._pending[self._serial] = kind, schema, fields
        self._bytes += len(fields) + ENTRY
        return self._serial

    @property
    def has_room(self):
        """May more be proposed?"""
        return self._bytes < WINDOW

    @property
    def is_settled(self):
        """Does everybody have all that was proposed here?"""
        return not self._pending and not self._unstable

    def is_pending(self, serial):
        """Has it not come back yet?"""
        return serial in self._pending

    @property
    def pending(self):
        """(serial, kind, schema, fields) of each, in order: to be proposed again on a new link."""
        return [(serial, *what) for serial, what in self._pending.items()]

    def arrived(self, entry, stable):
        """True if the entry is new; PeerError where one is missing before it."""
        if entry.number > self.last + 1:
            raise PeerError("leaves something out of the order", "order")
        is_new = entry.number > self.last
        if is_new:
            self.last = entry.number
            if entry.sender == self._me and entry.serial in self._pending:
                self._unstable.append((entry.number, len(self._pending.pop(entry.serial)[2]) + ENTRY))
        self.became_stable(stable)
        return is_new

    def became_stable(self, number):
        """Everybody has everything up to here."""
        while self._unstable and self._unstable[0][0] <= number:
            self._bytes -= self._unstable.popleft()[1]

    def begin_at(self, number, serial):
        """The state of this moment came instead of entries; the host had numbered the own ones up to `serial`."""
        self.last = number
        for done in [known for known in self._pending if known <= serial]:
            self._bytes -= len(self._pending.pop(done)[2]) + ENTRY
        self.became_stable(number)


class State:
    """What is shared: text keys, values as a field of type Any takes them."""

    def __init__(self):
        self.values = {}
        self._sizes = {}
        self._size = 0

    @staticmethod
    def encode(key, value):
        """A change as bytes. TypeError or ValueError for what no message can carry."""
        if not isinstance(key, str):
            raise TypeError(f"a key of the shared state is a str, not {type(key).__name__}")
        try:
            fields = _KEY.pack(_KEY.normal(key)) + ANYTHING.pack(ANYTHING.normal(value))
        except (TypeError, ValueError) as error:
            raise type(error)(f"share({key!r:.40}, ...): {error}") from None
        if len(fields) > limits.MAX_SHARED:
            raise ValueError(f"share({key!r:.40}, ...): {len(fields)} bytes; all that is shared may have {limits.MAX_SHARED}")
        return fields

    def apply(self, fields):
        """(key, value) of a change that was made; None for one that does not fit any more. PeerError as `decode`."""
        key, value = self.decode(fields)
        size = self._size - self._sizes.get(key, 0) + (0 if value is None else len(fields))
        if size > limits.MAX_SHARED or value is not None and key not in self.values and len(self.values) >= limits.MAX_SHARED_KEYS:
            return None
        self._size = size
        if value is None:
            self.values.pop(key, None)
            self._sizes.pop(key, None)
        else:
            self.values[key] = value
            self._sizes[key] = len(fields)
        return key, value

    def entries(self):
        """Changes that make this state out of an empty one."""
        return [self.encode(key, value) for key, value in self.values.items()]

    def replace(self, entries):
        """Become another state: (key, value) of what is different now, None for what is gone."""
        before, self.values, self._sizes, self._size = self.values, {}, {}, 0
        for fields in entries:
            self.apply(fields)
        gone = [(key, None) for key in before if key not in self.values]
        return gone + [(key, value) for key, value in self.values.items() if key not in before or before[key] != value]

    @staticmethod
    def decode(fields):
        """(key, value) of a change. PeerError for what `encode` never makes."""
        try:
            key, at = _KEY.unpack(fields, 0)
            value, at = ANYTHING.unpack(fields, at)
        except struct.error:
            raise PeerError("a change of the shared state that is cut off", "malformed") from None
        if at != len(fields):
            raise PeerError("a change of the shared state that is too long", "malformed")
        return key, value
