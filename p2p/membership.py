"""Who is alive: the first form, in which the TCP connections tell.

Decides and never acts. What happened goes in (`heard`, `linked`, `unlinked`, `dial_failed`), with the time;
`effects()` gives what is to be done, as plain data; `deadline()` is the one moment at which it wants `time(now)`
called. No socket and no clock, so that a simulation runs as many of these as it likes.

Evidence is a node's own TLS connection. What a datagram or another node says about X is a hint: an address to
dial. So a node that was only heard of is never alive, verified entries are never pushed out by unverified
ones, old acquaintances never by new ones, and nobody is dead on hearsay: a connection ended, and the dials after it failed.
"""

import hashlib
from collections import namedtuple

from . import limits
from .lookalike import skeleton
from .names import Names

ALIVE, SUSPECT, DEAD, LEFT = "alive", "suspect", "dead", "left"
STATES = (ALIVE, SUSPECT, DEAD, LEFT)

# (state, what happened) -> state; what is not listed changes nothing
NEXT = {
    (SUSPECT, "linked"): ALIVE,
    (DEAD, "linked"): ALIVE,
    (LEFT, "linked"): ALIVE,
    (ALIVE, "connection lost"): SUSPECT,
    (ALIVE, "goodbye"): LEFT,
    (SUSPECT, "goodbye"): LEFT,
    (SUSPECT, "refused"): DEAD,
    (SUSPECT, "overdue"): DEAD,
}

SUSPECT_FOR = 4.0            # s until a suspect that cannot be reached is dead; with SILENCE before, 10 s for a pulled cable
UNVERIFIED_FOR = 60.0        # s a node that was only heard of stays in the table
DIAL_DEAD_FOR = 3600.0       # s a dead node is still dialled, ever more rarely; a beacon starts it again

Keep = namedtuple("Keep", "id addresses tag others", defaults=((),))    # connect to it, in one of these networks, and stay so
Release = namedtuple("Release", "id")                  # dial it no longer
Changed = namedtuple("Changed", "member before after") # before is None for a newcomer, after None for a forgotten one
Clone = namedtuple("Clone", "host")                    # another node runs with this node's identity


class Member:
    """One row of the table. Times are the loop's, s."""

    def __init__(self, node_id, name, now):
        self.id = node_id
        self.name = name
        self.look = skeleton(name)     # names with the same one could be taken for each other
        self.state = SUSPECT
        self.is_self = False
        self.verified = False          # its own TLS has been seen
        self.addresses = []            # (host, port), the best first
        self.networks = []             # tags
        self.nonce = 0
        self.version = ""
        self.rtt_s = None
        self.first_seen_wall = 0.0
        self.last_seen = now
        self.since = now               # of the present state
        self.hinted = None             # when a hint last made us dial
        self.refused = 0
        self.crowded = 0               # dials since the last hint that somebody accepted and had no room for
        self.is_kept = False
        self.was_told = False          # did people hear that it is here?

    @property
    def is_acquainted(self):
        """Has its own TLS been seen, in this run or an earlier one?"""
        return self.verified or self.first_seen_wall > 0

    def add_address(self, host, port, is_proven):
        """Remember where it may be; proven addresses come first and are not pushed out by hints."""
        pair = (host, port)
        if pair in self.addresses:
            if not is_proven:
                return
            self.addresses.remove(pair)
        if is_proven:
            self.addresses.insert(0, pair)
        elif len(self.addresses) < limits.MAX_ADDRESSES:
            self.addresses.append(pair)
        del self.addresses[limits.MAX_ADDRESSES:]


class Membership:
    """The table, and what follows from each piece of evidence."""

    def __init__(self, me, name, nonce, now):
        self.me = Member(me, name, now)
        self.me.is_self = self.me.verified = True
        self.me.state = ALIVE
        self.me.nonce = nonce
        self._members = {me: self.me}
        self.names = Names(me, name)
        self._effects = []
        self._views = {}               # network's tag -> as `view` gave it last, until somebody comes or goes

    def __iter__(self):
        return iter(list(self._members.values()))

    def get(self, node_id):
        """The member, or None."""
        return self._members.get(node_id)

    def pretends(self, member):
        """The Pin of whoever was known before by a name that looks like this member's, or None. A hint makes nobody known."""
        elder = self.names.elder(member.look)
        return None if elder is None or elder.id == member.id else elder

    def met(self, member, wall):
        """Its own TLS has told who it is and what it is called; `wall`: Unix s."""
        self.names.met(member.id, member.name, wall)
        member.first_seen_wall = self.names.first_seen(member.id) or wall

    def forget(self, node_id):
        """Its names are anybody's again, and it is met for the first time when it comes back."""
        self.names.forget(node_id)
        member = self._members.get(node_id)
        if member is not None:
            self._forget(member)

    def _rename(self, member, name):
        if name != member.name:
            member.name, member.look = name, skeleton(name)

    def alive(self):
        """How many are alive, this node included."""
        return sum(1 for member in self._members.values() if member.state == ALIVE)

    def view(self, tag):
        """A digest of who is alive in a network, the same on every node that sees the same (u64). This node counts in each."""
        view = self._views.get(tag)
        if view is None:         # each beacon and each HELLO tells it
            ids = sorted(member.id for member in self._members.values()
                         if member.state == ALIVE and (tag in member.networks or member.is_self))
            view = self._views[tag] = int.from_bytes(hashlib.sha256(b"".join(ids)).digest()[:8], "little")
        return view

    # -- evidence

    def remembered(self, node_id, name, addresses, tags, first_seen_wall, now):
        """A node that was met in an earlier run: try where it was."""
        member = self._member(node_id, name, now)
        if member is None or member.is_self:
            return
        member.state = DEAD
        member.first_seen_wall = first_seen_wall
        member.networks = list(tags)
        for host, port in addresses[:limits.MAX_ADDRESSES]:
            member.add_address(host, port, is_proven=False)
        self._keep(member, tags[0])

    def heard(self, node_id, name, host, port, nonce, tag, now):
        """A hint that a node is at an address: a beacon (nonce of its start), or another node's word (nonce 0)."""
        if node_id == self.me.id:
            if nonce and nonce != self.me.nonce:
                self._effects.append(Clone(host))
            return
        member = self._member(node_id, name, now)
        if member is None:
            return
        if not member.is_acquainted:      # a hint renames nobody who was met
            self._rename(member, name)
            member.networks = [tag]
        elif tag not in member.networks and member.state != ALIVE:
            member.networks = (member.networks + [tag])[-limits.MAX_NETWORKS:]
        news = nonce != 0 and nonce != member.nonce
        if member.state == ALIVE and not news or member.state == LEFT and not news:
            return
        member.add_address(host, port, is_proven=False)
        if member.hinted is None or now - member.hinted >= limits.HINT_PAUSE:
            member.hinted = now
            member.crowded = 0
            self._keep(member, tag, first=(host, port))

    def is_no_news(self, node_id, nonce):
        """Would `heard` change nothing, since it is alive and was not started anew? Asked of each beacon."""
        member = self._members.get(node_id)
        return member is not None and member.state == ALIVE and nonce == member.nonce

    def linked(self, node_id, name, version, nonce, host, port, tag, now):
        """A connection with it is ready: it is alive and is who it is. The strongest evidence there is."""
        member = self._member(node_id, name, now, evict_verified=True)
        if member is None:
            return
        self._rename(member, name)
        member.version, member.nonce = version, nonce
        member.verified = True
        member.refused = 0
        member.last_seen = now
        member.networks = [tag]
        if port:
            member.add_address(host, port, is_proven=True)
        self._happened(member, "linked", now)
        if not member.is_kept:
            self._keep(member, tag)

    def belongs(self, node_id, tags):
        """It is connected, and has proved to be in these networks and in no others."""
        member = self._members.get(node_id)
        if member is not None and set(member.networks) != set(tags):
            member.networks = [tag for tag in member.networks if tag in tags] + sorted(set(tags) - set(member.networks))
            self._views.clear()

    def left_network(self, tag):
        """This node has left a network: whom it knew from there alone is forgotten, and given back."""
        gone = []
        for member in list(self._members.values()):
            if tag not in member.networks:
                continue
            member.networks = [other for other in member.networks if other != tag]
            if not member.networks and not member.is_self:
                self._forget(member)
                gone.append(member)
        self._views.clear()
        return gone

    def expel(self, node_id, tag):
        """It was removed from a network."""
        member = self._members.get(node_id)
        if member is None or tag not in member.networks:
            return
        member.networks = [other for other in member.networks if other != tag]
        self._views.clear()
        if not member.networks:
            self._forget(member)
        elif member.is_kept:
            self._keep(member, member.networks[0])

    def unlinked(self, node_id, kind, now):
        """Its connection ended; `kind` is LinkDown's, or "protocol"."""
        member = self._members.get(node_id)
        if member is None or member.is_self:
            return
        member.last_seen = now
        member.refused = 0
        if kind == "goodbye":
            self._release(member)
            self._happened(member, "goodbye", now)
        else:
            self._happened(member, "connection lost", now)

    def dial_failed(self, node_id, kind, now):
        """A dial of it failed with this kind of LinkDown."""
        member = self._members.get(node_id)
        if member is None or member.state != SUSPECT:
            return
        if not member.verified:
            # One dial a hint: whoever sends beacons in others' names must not get more packets out of us than he puts in.
            member.crowded += 1
            if kind not in ("eof", "reset") or member.crowded >= limits.HINT_TRIES:
                self._release(member)
        elif kind == "refused":
            member.refused += 1
            if member.refused >= limits.REFUSALS:
                self._happened(member, "refused", now)

    # -- time

    def deadline(self):
        """When `time` is to be called next (the loop's clock), or None."""
        due = [at for at in (self._due(member) for member in self._members.values()) if at is not None]
        return min(due) if due else None

    def _due(self, member):
        if member.is_self or member.state == ALIVE:
            return None
        if not member.verified and member.state == SUSPECT:
            return member.since + UNVERIFIED_FOR
        if member.state == SUSPECT:
            return member.since + SUSPECT_FOR
        if member.is_kept:
            return member.since + DIAL_DEAD_FOR
        return member.since + limits.FORGET

    def time(self, now):
        """Act on what is due."""
        for member in list(self._members.values()):
            due = self._due(member)
            if due is None or due > now:
                continue
            if member.state == SUSPECT and member.verified:
                self._happened(member, "overdue", now)
            elif member.is_kept and member.state in (DEAD, LEFT):
                self._release(member)
            else:
                self._forget(member)

    def effects(self):
        """What is to be done, in order; each is given once."""
        effects, self._effects = self._effects, []
        return effects

    # -- inside

    def _member(self, node_id, name, now, evict_verified=False):
        member = self._members.get(node_id)
        if member is not None:
            return member
        if len(self._members) >= limits.MAX_MEMBERS and not self._make_room(evict_verified):
            return None
        member = self._members[node_id] = Member(node_id, name, now)
        member.first_seen_wall = self.names.first_seen(node_id)
        self.names.came(node_id)
        self._effects.append(Changed(member, None, SUSPECT))
        return member

    def _make_room(self, evict_verified):
        candidates = [member for member in self._members.values()
                      if not member.is_self and member.state != ALIVE and (evict_verified or not member.is_acquainted)]
        if not candidates:
            return False
        self._forget(min(candidates, key=lambda member: (member.is_acquainted, -member.first_seen_wall, member.last_seen, member.id)))
        return True

    def _forget(self, member):
        self._release(member)
        del self._members[member.id]
        self.names.went(member.id)
        self._views.clear()
        self._effects.append(Changed(member, member.state, None))

    def _happened(self, member, event, now):
        after = NEXT.get((member.state, event))
        if after is None:
            return
        before, member.state, member.since = member.state, after, now
        self._views.clear()
        self._effects.append(Changed(member, before, after))

    def _keep(self, member, tag, first=None):
        member.is_kept = True
        addresses = list(member.addresses)
        if first in addresses:
            addresses.remove(first)
            addresses.insert(0, first)
        self._effects.append(Keep(member.id, addresses, tag, tuple(other for other in member.networks if other != tag)))

    def _release(self, member):
        if member.is_kept:
            member.is_kept = False
            self._effects.append(Release(member.id))
