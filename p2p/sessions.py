"""Who takes part in a run of an application, and how far each is: the pure machine behind `run`.

What arrived goes in as calls (from another node, from this user, from the files, from the processes), with the time;
what is to be done comes out of `effects()`, as plain data. No socket, no clock, no process.

The host is the node that is named in the invitation, for ever: a session whose host dies goes on among the others,
each root keeping the roster for its own instance from what it hears. A node speaks for itself only: ANSWER, READY and
FINISHED are about their sender; only the host's ROSTER speaks of others, and never of this node.

Messages may come twice, late, or not at all where a link broke under them. So nobody goes back in NEXT, whoever says
so, what a message carries counts only with the step that it makes, and when a link is there again each side repeats
how far it is (`met`).

Unreachable is no end: it is what this node sees of another, and nothing that the other did. Whatever that one says of
itself later counts, so a session that a short cut has split is whole again once the links are back. A root that was
started anew knows of no session, says nothing, and stays unreachable.
"""

from collections import namedtuple

from . import limits, proto
from .errors import PeerError, UserError

ASKED, ALLOWED, RUNNING, EXITED, DENIED, EXPIRED, UNREACHABLE, FAILED = range(8)
OPEN = (ASKED, ALLOWED, RUNNING)
TOKEN = 32               # bytes
MAX_WORDS = 1000         # bytes of a reason in an ANSWER
MAX_INVITED = 255        # with the host, what a roster holds

# (status, what happened) -> status; what is not listed changes nothing, so late and repeated messages are harmless
NEXT = {
    (ASKED, "allowed"): ALLOWED,
    (ASKED, "denied"): DENIED,
    (ASKED, "expired"): EXPIRED,
    (ASKED, "unreachable"): UNREACHABLE,
    (ASKED, "failed"): FAILED,
    (ALLOWED, "ready"): RUNNING,
    (ALLOWED, "failed"): FAILED,
    (ALLOWED, "finished"): EXITED,
    (ALLOWED, "unreachable"): UNREACHABLE,
    (RUNNING, "finished"): EXITED,
    (RUNNING, "unreachable"): UNREACHABLE,
    (UNREACHABLE, "allowed"): ALLOWED,
    (UNREACHABLE, "denied"): DENIED,
    (UNREACHABLE, "expired"): EXPIRED,
    (UNREACHABLE, "failed"): FAILED,
    (UNREACHABLE, "ready"): RUNNING,
    (UNREACHABLE, "finished"): EXITED,
}
NEXT.update({(status, "removed"): FAILED for status in OPEN + (UNREACHABLE,)})      # from its network: it does not come back

Send = namedtuple("Send", "to message fields")        # a notice to a node
Ask = namedtuple("Ask", "session")                    # this user's word is wanted
Withdraw = namedtuple("Withdraw", "session")          # it is wanted no longer
Fetch = namedtuple("Fetch", "session")                # bring the files level
Start = namedtuple("Start", "session")                # spawn this node's instance
Tell = namedtuple("Tell", "session")                  # hand the roster to this node's instance
Kill = namedtuple("Kill", "session")                  # end this node's instance
Changed = namedtuple("Changed", "session member before")     # a member's status, for people
Over = namedtuple("Over", "session")                  # nothing is under way any more


class Participant:
    """One node in a session."""

    def __init__(self, node_id, name, status):
        self.id = node_id
        self.name = name
        self.status = status
        self.address = ""
        self.port = 0
        self.exit = None
        self.was = status            # before it could not be reached
        self.is_gone = False         # this node itself has lost it, and has not met it since

    def happened(self, event, port=None, code=None):
        """Take the step of NEXT, and with it what was said; False, and nothing taken, if there is none."""
        after = NEXT.get((self.status, event))
        if after is None or self.status == UNREACHABLE and after < self.was:
            return False
        self._be(after)
        self.port = self.port if port is None else port
        self.exit = code
        return True

    def _be(self, status):
        self.was = self.status if status == UNREACHABLE else status
        self.status = status

    def follow(self, row, is_seen):
        """What the host says of it: only ever a step forward. True if it was news. `is_seen`: this node has a link with it."""
        before = (self.status, self.port, self.address)
        if self._believes(row.status, is_seen):
            self._be(row.status)
            self.exit = row.exit if row.status == EXITED else None
        if self.status in OPEN:
            self.port, self.address = row.port or self.port, row.address or self.address
        return (self.status, self.port, self.address) != before

    def _believes(self, status, is_seen):
        """Is the host's word a step? Whether somebody can be reached, each node sees for itself, where it can."""
        if status == UNREACHABLE:
            return self.status in OPEN and not is_seen
        if self.status == UNREACHABLE:
            return status not in OPEN or status >= self.was and not self.is_gone
        return self.status in OPEN and (status not in OPEN or status > self.status)


class Session:
    """One run of an application. `members` in the order of the invitation, the host first."""

    def __init__(self, number, app, version, publisher, network, arguments, host, token, port, files=0, size=0):
        self.number = number
        self.app = app
        self.version = version
        self.publisher = publisher
        self.network = network
        self.arguments = list(arguments)
        self.host = host
        self.token = token
        self.port = port
        self.files = files
        self.size = size
        self.members = {}
        self.expires = None
        self.job = None
        self.allowed_by = ""         # whose word lets it run here, for the log
        self.known_since = 0.0       # when this node first saw the host, Unix time
        self.is_started = False
        self.has_lost_host = False   # its node is gone, and nothing came since: there is nobody to ask for the end
        self.is_end_wanted = False   # this node's program has asked the host for the end, which may not have arrived
        self.is_ending = False       # its end was said; what is under way still comes to its own
        self.is_over = False

    def add(self, node_id, name, status):
        """Take a participant in."""
        self.members[node_id] = Participant(node_id, name, status)
        return self.members[node_id]

    def roster(self, *about):
        """Rows of proto.Member: of all, or of these."""
        return [{"id": member.id, "name": member.name, "status": member.status, "address": member.address, "port": member.port,
                 "exit": member.exit or 0} for member in about or self.members.values()]


class Sessions:
    """All sessions that this node hosts or was invited to. `me`: its node ID."""

    def __init__(self, me, name):
        self._me = me
        self._name = name
        self._sessions = {}
        self._effects = []

    def __iter__(self):
        return iter(list(self._sessions.values()))

    def get(self, number):
        """The session, or None."""
        return self._sessions.get(number)

    def effects(self):
        """What is to be done, in order; each is given once."""
        effects, self._effects = self._effects, []
        return effects

    # -- hosting

    def start(self, session, invited, now):
        """Host a session: `invited` are (node ID, name) pairs. The files must be here."""
        if len(invited) > MAX_INVITED:
            raise UserError(f"a session has room for {MAX_INVITED} other nodes, {len(invited)} were named: name fewer", code="too-many")
        self._make_room()
        assert session.number not in self._sessions
        self._sessions[session.number] = session
        session.add(self._me, self._name, ALLOWED)
        session.expires = now + limits.ASK_FOR + limits.ASK_GRACE
        for node_id, name in invited:
            session.add(node_id, name, ASKED)
        for node_id, _ in invited:
            self._effects.append(Send(node_id, proto.INVITE, self._invitation(session)))
        self._start(session)

    def _invitation(self, session):
        return {"session": session.number, "app": session.app, "version": session.version, "publisher": session.publisher,
                "network": session.network, "files": session.files, "bytes": session.size, "arguments": session.arguments,
                "roster": session.roster(), "port": session.port, "token": session.token, "expires_s": int(limits.ASK_FOR)}

    def unreachable(self, session, node_id):
        """An invitation could not be delivered."""
        self._step(session, node_id, "unreachable")

    def answered(self, sender, number, status):
        """ANSWER of an invited node."""
        session = self._hosted(number, sender)
        event = {ALLOWED: "allowed", DENIED: "denied", EXPIRED: "expired", FAILED: "failed"}.get(status)
        if session is None or event is None:
            return
        member = session.members[sender]
        is_given_up = member.status == EXPIRED or member.status == UNREACHABLE and session.is_over
        if event == "allowed" and is_given_up and not member.port:
            self._effects.append(Send(sender, proto.END, {"session": number}))         # it would run on alone
        else:
            self._step(session, sender, event)

    # -- being invited

    def invited(self, sender, invite, now, known_since=0.0):
        """INVITE of a node that is known since then. Raises PeerError for one that contradicts itself, UserError where there is no room."""
        known = self._sessions.get(invite.session)
        if known is not None and known.host == sender:
            return                        # repeated: the first may not have arrived
        if known is not None or len(invite.token) != TOKEN:
            raise PeerError("invites to a session that exists already, or to one without a token", "session")
        roster = {row.id: row for row in invite.roster}
        if sender not in roster or self._me not in roster or len(roster) != len(invite.roster):
            raise PeerError("an invitation whose roster does not hold both ends", "session")
        self._make_room_among_others(known_since)
        self._make_room()
        session = Session(invite.session, invite.app, invite.version, invite.publisher, invite.network, invite.arguments,
                          sender, invite.token, invite.port, invite.files, invite.bytes)
        for row in invite.roster:
            member = session.add(row.id, row.name, row.status if row.id != self._me and row.status <= FAILED else ASKED)
            member.address, member.port = row.address, row.port
        session.expires = now + limits.ASK_FOR
        session.known_since = known_since
        self._sessions[session.number] = session
        self._effects.append(Ask(session))

    def _make_room_among_others(self, known_since):
        """Anybody can be many nodes. So of the questions that wait, that of who is known for the shortest time gives way."""
        others = [session for session in self if session.host != self._me and not session.is_over]
        if len(others) < limits.MAX_SESSIONS_OTHERS:
            return
        waiting = [session for session in others if session.members[self._me].status == ASKED]
        newest = max(waiting, key=lambda session: session.known_since, default=None)
        if newest is None or newest.known_since <= known_since:
            raise UserError("too many sessions of others are open there")
        self._effects.append(Withdraw(newest))
        self._answer(newest, FAILED, "too many sessions of others are open there")

    def decided(self, session, is_allowed, text=""):
        """This user's (or a rule's) word."""
        if session.members[self._me].status != ASKED:
            return
        self._answer(session, ALLOWED if is_allowed else DENIED, text)
        if is_allowed:
            self._effects.append(Fetch(session))

    def expired(self, session):
        """Nobody answered in time."""
        if session.members[self._me].status == ASKED:
            self._answer(session, EXPIRED, "")

    def fetched(self, session, problem=""):
        """The files are level, or why not."""
        if session.members[self._me].status != ALLOWED or session.is_started:
            return
        if session.is_ending:
            problem = "the session ended before its files were there"
        if problem:
            self._answer(session, FAILED, problem)
        else:
            self._start(session)

    def _start(self, session):
        session.is_started = True
        self._effects.append(Start(session))

    def _answer(self, session, status, text):
        event = {ALLOWED: "allowed", DENIED: "denied", EXPIRED: "expired", FAILED: "failed"}[status]
        words = text.encode("utf-8", "replace")[:MAX_WORDS].decode("utf-8", "ignore")
        self._effects.append(Send(session.host, proto.ANSWER, {"session": session.number, "status": status, "text": words}))
        self._step(session, self._me, event)

    # -- this node's instance

    def listening(self, session, port):
        """This node's instance told its port."""
        if self._step(session, self._me, "ready", port=port):
            self._tell_others(session, proto.READY, port=port)

    def finished(self, session, code):
        """This node's instance has ended, or could not be started."""
        if self._step(session, self._me, "finished", code=code):
            self._tell_others(session, proto.FINISHED, exit=code)

    def _tell_others(self, session, message, **fields):
        for other in self._others(session):
            self._effects.append(Send(other, message, dict(fields, session=session.number)))

    # -- what the others say

    def ready(self, sender, number, port):
        """READY of another node's instance."""
        session = self._joined(number, sender)
        if session:
            self._has_allowed(session, sender)
            self._step(session, sender, "ready", port=port)

    def exited(self, sender, number, code):
        """FINISHED of another node's instance."""
        session = self._joined(number, sender)
        if session:
            self._has_allowed(session, sender)
            self._step(session, sender, "finished", code=code)

    def _has_allowed(self, session, sender):
        if session.members[sender].status == ASKED:       # its answer has not reached us
            self._step(session, sender, "allowed")

    def rostered(self, sender, number, rows, linked=()):
        """ROSTER of the host: what it knows of the others, or of some of them. `linked`: with whom this node has a link."""
        session = self._joined(number, sender)
        if session is None or sender != session.host:
            return
        known = [row for row in rows if row.id != self._me and row.status <= FAILED and row.id in session.members]
        if any([session.members[row.id].follow(row, row.id in linked) for row in known]):
            self._effects.append(Tell(session))

    def end(self, sender, number):
        """END: the host's ends the session here; another's who takes part asks the host to end it for all.

        Where the host is gone, there is nobody to ask, and a participant's word ends it.
        """
        session = self._joined(number, sender)
        if session is None:
            return
        if sender == session.host:
            session.is_end_wanted = False
        may_ask = session.host == self._me or session.has_lost_host
        if sender == session.host or may_ask and session.members[sender].status in (ALLOWED, RUNNING):
            self.close(session)

    def close(self, session):
        """End it here, and as the host for everybody."""
        if session.is_over or session.is_ending:
            return
        session.is_ending = True
        if session.host == self._me:
            self._tell_others(session, proto.END)
            for other in self._others(session):
                if session.members[other].status == ASKED:
                    self._step(session, other, "expired")       # its answer is not waited for
        if session.members[self._me].status == ASKED:
            self._effects.append(Withdraw(session))
            self._step(session, self._me, "expired")
        elif session.members[self._me].status in OPEN:
            self._effects.append(Kill(session))

    def ask_for_end(self, session):
        """This node's instance wants the session to end."""
        if session.host == self._me:
            self.close(session)
            return
        session.is_end_wanted = True
        if session.has_lost_host:
            if not session.is_ending:
                self._tell_others(session, proto.END)
            self.close(session)
        else:
            self._effects.append(Send(session.host, proto.END, {"session": session.number}))

    def takes_part(self, session):
        """Has this node started it, or said yes?"""
        return session.host == self._me or session.members[self._me].status in (ALLOWED, RUNNING, EXITED)

    def node_gone(self, node_id, network=None):
        """A node is dead or has left; with `network` (its tag) it is not in that one any more."""
        for session in self:
            if node_id in session.members and not session.is_over and network in (None, session.network):
                session.members[node_id].is_gone = True
                self._step(session, node_id, "unreachable" if network is None else "removed")
                session.has_lost_host |= node_id == session.host
                if node_id == session.host and session.members[self._me].status == ASKED:
                    self.close(session)
                elif node_id == session.host and session.is_end_wanted:
                    self.ask_for_end(session)

    def met(self, node_id):
        """A link with this node is there, for the first time or again: what was said may not have arrived."""
        for session in self:
            member, mine = session.members.get(node_id), session.members[self._me]
            if member is None or node_id == self._me:
                continue
            member.is_gone = False
            if session.host == self._me:
                self._repeat_as_host(session, member)
            elif session.host == node_id and mine.status != ASKED:
                status = mine.status if mine.status in (DENIED, EXPIRED, FAILED) else ALLOWED
                self._effects.append(Send(node_id, proto.ANSWER, {"session": session.number, "status": status, "text": ""}))
            if mine.port and mine.status in (RUNNING, EXITED):
                self._effects.append(Send(node_id, proto.READY, {"session": session.number, "port": mine.port}))
            if session.host == node_id and session.is_end_wanted:
                self._effects.append(Send(node_id, proto.END, {"session": session.number}))
            if mine.status == EXITED:
                self._effects.append(Send(node_id, proto.FINISHED, {"session": session.number, "exit": mine.exit}))

    def _repeat_as_host(self, session, member):
        if session.is_ending:
            self._effects.append(Send(member.id, proto.END, {"session": session.number}))
        elif member.status == ASKED:
            self._effects.append(Send(member.id, proto.INVITE, self._invitation(session)))
        elif member.status in OPEN:
            self._effects.append(self._roster_to(session, member))

    # -- time

    def deadline(self):
        """When `time` is to be called next, or None."""
        due = [session.expires for session in self._sessions.values() if session.expires is not None and self._waiting(session)]
        return min(due) if due else None

    def time(self, now):
        """Invitations that nobody answered."""
        for session in self:
            if session.expires is None or session.expires > now:
                continue
            for member in self._waiting(session):
                if member.id == self._me:
                    self._effects.append(Withdraw(session))
                    self.expired(session)
                elif session.host == self._me:
                    self._step(session, member.id, "expired")

    def _waiting(self, session):
        mine = session.host == self._me
        return [member for member in session.members.values() if member.status == ASKED and (mine or member.id == self._me)]

    # -- inside

    def _others(self, session):
        return [node_id for node_id in session.members if node_id != self._me]

    def _hosted(self, number, sender):
        session = self._joined(number, sender)
        return session if session and session.host == self._me else None

    def _joined(self, number, sender):
        session = self._sessions.get(number)
        if session is None or sender not in session.members or sender == self._me:
            return None
        if sender == session.host:
            session.has_lost_host = False          # who knows of the session was not started anew
        return session

    def _step(self, session, node_id, event, port=None, code=None):
        member = session.members[node_id]
        before = member.status
        if not member.happened(event, port, code):
            return False
        self._effects.append(Changed(session, member, before))
        if session.host == self._me:
            self._pass_on(session, member, before)
        self._effects.append(Tell(session))
        self._settle(session)
        return True

    def _pass_on(self, session, member, before):
        """To the others what is new, as it would be 4 GB if each step of 255 sent all to all; all to who has just come (again)."""
        for other in session.members.values():
            if other.id == self._me or other.status not in (ALLOWED, RUNNING):
                continue
            if other is not member:
                self._effects.append(self._roster_to(session, other, member))
            elif before in (ASKED, UNREACHABLE):
                self._effects.append(self._roster_to(session, other))

    def _roster_to(self, session, member, *about):
        return Send(member.id, proto.ROSTER, {"session": session.number, "members": session.roster(*about)})

    def _settle(self, session):
        mine = session.members[self._me].status
        if session.host == self._me:
            done = all(member.status not in OPEN for member in session.members.values())
        else:
            done = mine not in OPEN
        if done and not session.is_over:
            session.expires = None
            self._effects.append(Over(session))
        session.is_over = done

    def _make_room(self):
        if len(self._sessions) < limits.MAX_SESSIONS:
            return
        for number, session in self._sessions.items():
            if session.is_over:
                del self._sessions[number]
                return
        raise UserError(f"{limits.MAX_SESSIONS} sessions are open on this node: end one with `kill`", code="too-many")


def exit_code(session, me) -> int:
    """What `run --wait` exits with: 0 all well, 4 all denied, 5 all expired, else 1."""
    others = [member for member in session.members.values() if member.id != me]
    if others and all(member.status == DENIED for member in others):
        return 4
    if others and all(member.status == EXPIRED for member in others):
        return 5
    return 0 if all(member.status == EXITED and member.exit == 0 for member in session.members.values()) else 1
