"""Ordered messages and the shared state of one instance: ordering.py's decisions, carried over its links.

The instance tells of new links and of peers that left; what has its place in the order becomes events like all others. The
host vouches for the order and not for what others have said in it: an entry that cannot be read costs its proposer its link,
at the host, and nobody else anything.
"""

from . import proto
from .errors import PeerError
from .message import Change, decode, message_class
from .ordering import CHANGE, MESSAGE, Entry, Follower, Sequencer, State


class Shared:
    """`instance` gives loop, dispatch, me, host, joined, links, link, member, is_here, left, arrived and complain."""

    def __init__(self, instance):
        self.state = State()
        self._instance = instance
        self._follower = Follower(instance.me.id)
        self._sequencer = None
        self._too_large = set()        # serials of own changes that did not fit
        self._is_level = False         # has the host said that nothing is missing here?
        self._is_told = True           # has everybody been told how far this one has come, or what all have?
        for message, handler in ((proto.PROPOSE, self._on_propose), (proto.ORDERED, self._on_ordered), (proto.FOLLOW, self._on_follow),
                                 (proto.CONFIRM, self._on_confirm), (proto.SHARED, self._on_shared)):
            instance.dispatch.notice(message, handler)

    def begin(self):
        """The instance knows who the host is."""
        if self._instance.host is self._instance.me:
            self._sequencer = Sequencer()

    def start(self):
        """The program attaches now. At the host the order begins, so that whoever is here by then has all of it."""
        if self._sequencer is not None:
            for entry in self._sequencer.begin():
                self._announce(entry)

    @property
    def is_level(self):
        """Is nothing missing that was said in order before this moment? At the host: is everybody ready to hear what is said?"""
        if self._sequencer is None:
            return self._is_level or self._instance.host.has_left
        followers = self._sequencer.followers
        return all(peer.id in followers for peer in self._instance.joined)

    # -- for the application

    @property
    def has_room(self):
        """May more be said in order?"""
        return self._follower.has_room

    @property
    def is_settled(self):
        """Does everybody have all that was proposed here?"""
        return self._follower.is_settled

    def propose(self, schema, fields, kind=MESSAGE):
        """Have this numbered; the serial under which it comes back."""
        serial = self._follower.propose(kind, schema, fields)
        if self._sequencer is not None:
            self._number(self._instance.me.id, serial, kind, schema, fields)
        else:
            link = self._instance.link(self._instance.host)
            if link is not None:                  # else it goes with the next one
                link.send(proto.PROPOSE, serial=serial, kind=kind, schema=schema, fields=fields)
        return serial

    def propose_change(self, key, value):
        """As `propose`, for the shared state. TypeError or ValueError for what cannot be shared."""
        return self.propose(0, State.encode(key, value), CHANGE)

    def is_pending(self, serial):
        """Has it not come back yet?"""
        return self._follower.is_pending(serial)

    def was_too_large(self, serial):
        """Did the change find no room in the state? Asked once."""
        found = serial in self._too_large
        self._too_large.discard(serial)
        return found

    # -- links

    def linked(self, peer, connection):
        """A link with a peer begins to serve."""
        if self._sequencer is not None:
            self._sequencer.lost(peer.id)
        if peer is not self._instance.host:
            return
        connection.send(proto.FOLLOW, last=self._follower.last)
        for serial, kind, schema, fields in self._follower.pending:
            connection.send(proto.PROPOSE, serial=serial, kind=kind, schema=schema, fields=fields)

    def left(self, peer):
        """It is gone; nothing is kept for it."""
        if self._sequencer is not None:
            self._sequencer.left(peer.id)
            self._tell_later()

    # -- at the host

    def _on_follow(self, connection, told):
        sequencer = self._at_host(connection)
        entries = sequencer.follow(connection.peer_id, told.last)
        if entries is None:
            connection.send(proto.SHARED, number=sequencer.number, serial=sequencer.serial_of(connection.peer_id),
                            changes=self.state.entries())
        else:
            for entry in entries:
                connection.post(proto.ORDERED.word, 0, self._packed(entry))
            connection.send(proto.CONFIRM, last=sequencer.stable)

    def _on_propose(self, connection, said):
        self._at_host(connection)
        if said.kind == CHANGE:
            State.decode(said.fields)
        elif said.kind == MESSAGE:
            self._message(said)
        else:
            raise PeerError("proposes a kind of entry that there is not", "malformed")
        self._number(connection.peer_id, said.serial, said.kind, said.schema, said.fields)

    def _on_confirm(self, connection, told):
        if self._sequencer is None:
            self._from_host(connection)
            self._follower.became_stable(told.last)
            self._is_level = True
        elif self._at_host(connection).confirm(connection.peer_id, told.last):
            self._tell_later()

    def _number(self, sender, serial, kind, schema, fields):
        entry = self._sequencer.propose(sender, serial, kind, schema, fields)
        if entry is not None:
            self._announce(entry)

    def _announce(self, entry):
        body = self._packed(entry)
        for peer_id in self._sequencer.followers:
            link = self._instance.links.get(peer_id)
            if link is not None and link.is_ready:          # else it says FOLLOW on the next one
                link.post(proto.ORDERED.word, 0, body)
        self._arrived(entry, self._sequencer.stable)

    def _packed(self, entry):
        return proto.ORDERED.pack(stable=self._sequencer.stable, **entry._asdict())

    # -- at everybody

    def _on_ordered(self, connection, said):
        self._from_host(connection)
        self._arrived(Entry(said.number, said.sender, said.serial, said.kind, said.schema, said.fields), said.stable)
        self._tell_later()

    def _on_shared(self, connection, told):
        self._from_host(connection)
        if told.number < self._follower.last:
            raise PeerError("goes back in the order", "order")
        self._follower.begin_at(told.number, told.serial)
        self._is_level = True
        for key, value in self.state.replace(told.changes):
            self._instance.arrived(Change(key, value), self._instance.host, 0)

    def _arrived(self, entry, stable):
        if not self._follower.arrived(entry, stable):
            return
        instance = self._instance
        sender = instance.member(entry.sender)
        is_seen, has_left = sender is instance.me or sender.was_joined, sender.has_left
        if not is_seen:
            instance.is_here(sender)              # its own connection is still on the way; its Join comes first
        self._hand_over(entry, sender)
        if not is_seen and has_left:
            instance.left(sender)                 # it had gone again before this node ever met it

    def _hand_over(self, entry, sender):
        instance = self._instance
        try:
            event = self._change(entry, sender) if entry.kind == CHANGE else self._message(entry)
        except PeerError as error:
            instance.complain(sender, str(error))
            return
        if event is not None:
            instance.arrived(event, sender, len(entry.fields))
        elif entry.kind == MESSAGE:
            instance.complain(sender, "sends messages of a class that this program does not have: it runs another version")

    @staticmethod
    def _message(said):
        kind = message_class(said.schema)
        return decode(kind, said.fields) if kind else None

    def _change(self, entry, sender):
        change = self.state.apply(entry.fields)
        if change is None and sender is self._instance.me:
            self._too_large.add(entry.serial)
        return Change(*change) if change else None

    def _tell_later(self):
        """Once a turn is enough, however many entries came."""
        if self._is_told:
            self._is_told = False
            self._instance.loop.at_turn_end(self._tell)

    def _tell(self):
        self._is_told = True
        instance = self._instance
        if self._sequencer is None:
            links, last = [instance.link(instance.host)], self._follower.last
        else:
            links, last = [instance.links.get(peer_id) for peer_id in self._sequencer.followers], self._sequencer.stable
            self._follower.became_stable(last)
        for link in links:
            if link is not None and link.is_ready:
                link.send(proto.CONFIRM, last=last)

    # -- who may say what

    def _at_host(self, connection):
        if self._sequencer is None or self._instance.links.get(connection.peer_id) is not connection:
            raise PeerError("proposes to an instance that is not the host", "order")
        return self._sequencer

    def _from_host(self, connection):
        host = self._instance.host
        if connection.peer_id != host.id or self._instance.links.get(host.id) is not connection:
            raise PeerError("speaks for the host and is not", "order")
