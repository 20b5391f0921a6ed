"""Runs applications: carries out what sessions and consent decide, and brings them what happened.

An INVITE is checked and put to this user (asking.py); a yes brings the files level
and starts a job; what the job's instance tells its root (LISTENING) goes to the other roots (READY), and what the
roots tell of theirs goes to the instance (ROSTER), with each address as this node sees it.
"""

import os

from . import proto
from .asking import Asking, about
from .errors import P2PError, PeerError, UserError
from .guardian import Guardian
from .interfaces import is_nearby
from .jobs import EXITED, Jobs, how_it_ended
from .layout import Job as JobRow
from .layout import Session as SessionRow
from .sessions import MAX_INVITED, OPEN
from .sessions import Ask, Changed, Fetch, Kill, Over, Send, Session, Sessions, Start, Tell, Withdraw, exit_code
from .sync.manifest import app_name_fault
from .text import clean
from .trust.ecc import node_id_text

WORDS = proto.STATUS
TOLD = ("allowed", "denied", "expired", "unreachable", "failed")      # what the host's user hears of the others


class Launcher:
    """`node` gives everything else; see Node."""

    def __init__(self, node):
        self._node = node
        self._loop = node.loop
        self._me = node.identity.node_id
        self._timer = None
        self.sessions = Sessions(self._me, node.name)
        self.asking = Asking(node, self.sessions, self.act)
        self.jobs = Jobs(node.loop, node.entry, self._job_ended)
        self.guardian = Guardian(node.loop, node.instance_dispatch, self.sessions, self.jobs, self._roster, self.act)
        self._register(node.dispatch)

    def _register(self, peers):
        peers.notice(proto.INVITE, self._on_invite)
        peers.notice(proto.ANSWER, lambda connection, said: self._answered(connection, said))
        peers.notice(proto.READY, lambda connection, said: self._told(self.sessions.ready, connection, said.session, said.port))
        peers.notice(proto.FINISHED, lambda connection, said: self._told(self.sessions.exited, connection, said.session, said.exit))
        peers.notice(proto.ROSTER, lambda connection, said: self._told(
            self.sessions.rostered, connection, said.session, said.members,
            [row.id for row in said.members if self._node.link(row.id)]))
        peers.notice(proto.END, lambda connection, said: self._told(self.sessions.end, connection, said.session))

    def _told(self, call, connection, number, *what):
        session = self.sessions.get(number)
        if session is None or session.network in connection.networks:      # else it was removed, or has not proved yet that it is a member
            call(connection.peer_id, number, *what)
            self.act()

    # -- hosting

    async def run(self, app, nodes, arguments, network=None, is_all=False) -> Session:
        """Start an application here and ask these nodes (IDs) to take part. `network`: the name of the one in which it is offered, else
        one that all of them are in. With `is_all` those who are in its network are asked. Raises UserError."""
        _check_arguments(arguments)
        nodes = [node_id for node_id in dict.fromkeys(nodes) if node_id != self._me]
        if len(nodes) > MAX_INVITED:
            raise UserError(f"a session has room for {MAX_INVITED} other nodes, {len(nodes)} were named: name fewer", code="too-many")
        offer = await self._node.offers.offered(app, self._common_networks([] if is_all else nodes, network))
        if is_all:
            links = [(node_id, self._node.link(node_id)) for node_id in nodes]
            nodes = [node_id for node_id, link in links if link is not None and offer.network in link.networks]
        await self._node.offers.bring_offered(offer)
        session = Session(int.from_bytes(self._loop.entropy(8), "little") or 1, offer.name, offer.version, offer.publisher_id,
                          offer.network, arguments, self._me, self._loop.entropy(32), self._free_port(), offer.files, offer.bytes)
        self.sessions.start(session, [(node_id, self._node.label(node_id)) for node_id in nodes], self._loop.now())
        session.allowed_by = "owner"
        self._keep("run", session, by="owner", network=self._node.networks.name_of(offer.network), invited=len(nodes),
                   nodes=", ".join(map(self._node.label, nodes)) or None)
        self.act()
        return session

    def _common_networks(self, nodes, network):
        """Tags of the networks that this node and all of these are in."""
        tags = [self._node.network(network).tag] if network else self._node.networks.tags
        for node_id in nodes:
            connection = self._node.link(node_id)
            label = self._node.label(node_id)
            if connection is None:
                raise UserError(f"{label} is not connected: `nodes` shows who is alive", code="unreachable")
            before, tags = tags, [tag for tag in tags if tag in connection.networks]
            if not tags:
                names = " or ".join(map(self._node.networks.name_of, before))
                raise UserError(f"{label} is not in {names}: a session runs within one network; "
                                "`nodes --network NET` shows who is in it", code="other-network")
        return tags

    def is_run_with(self, connection, version) -> bool:
        """Is this version run with the other end of this link, by this user's word, in a network of both?"""
        return any(session.version == version and connection.peer_id in session.members and not session.is_over
                   and session.network in connection.networks and self.sessions.takes_part(session) for session in self.sessions)

    def left_network(self, tag):
        """What runs in a network that this node has left ends here."""
        for session in self.sessions:
            if session.network == tag:
                self.sessions.close(session)
        self.act()

    async def wait(self, session) -> int:
        """Until the session is over; what `run --wait` exits with. If nobody takes part, this node's instance ends too."""
        while not session.is_over:
            if self._nobody_came(session):
                self.sessions.close(session)
                self.act()
            await self._node.changed.wait()
        return exit_code(session, self._me)

    def _nobody_came(self, session):
        others = [member for member in session.members.values() if member.id != self._me]
        return others and all(WORDS[member.status] in ("denied", "expired", "failed") for member in others)

    # -- being asked

    def _on_invite(self, connection, invite):
        if app_name_fault(invite.app):
            raise PeerError("invites to an application whose name is not allowed", "name")
        if invite.network not in connection.networks:
            connection.send(proto.ANSWER, session=invite.session, status=proto.BROKEN, text="the two nodes are not both in its network")
            return
        try:
            member = self._node.neighbours.table.get(connection.peer_id)
            known_since = member.first_seen_wall if member else 0.0
            self.sessions.invited(connection.peer_id, invite, self._loop.now(), known_since or self._loop.wall())
        except UserError as error:
            connection.send(proto.ANSWER, session=invite.session, status=proto.BROKEN, text=str(error))
            return
        self.act()

    def _answered(self, connection, said):
        session = self.sessions.get(said.session)
        member = session.members.get(connection.peer_id) if session else None
        before = member.status if member else None
        self.sessions.answered(connection.peer_id, said.session, said.status)
        if member and member.status != before and member.status in (proto.DENIED, proto.BROKEN) and said.text:
            self._node.notice(f"* {self._node.label(connection.peer_id)}: {clean(said.text, 200)}")
        self.act()

    def _keep(self, kind, session, **more):
        self._node.log.keep(kind, dict(about(session, self._node.label(session.host)), **more))

    # -- effects

    def act(self):
        """Carry out what the machines decided."""
        self.asking.carry_out()
        handlers = {Send: self._send, Changed: self._changed, Over: lambda effect: None,
                    Ask: lambda effect: self.asking.ask(effect.session), Withdraw: lambda effect: self.asking.withdraw(effect.session),
                    Start: lambda effect: self._start(effect.session),
                    Fetch: lambda effect: self._loop.start(self._fetch(effect.session)),
                    Tell: lambda effect: self.guardian.tell(effect.session), Kill: lambda effect: self.guardian.end(effect.session)}
        effects = self.sessions.effects()
        while effects:
            for effect in effects:
                try:
                    handlers[type(effect)](effect)
                except Exception as error:  # one that fails costs the others nothing: each comes only once
                    self._loop.report(f"an effect of the sessions failed: {type(effect).__name__}", error)
            effects = self.sessions.effects()
        self._node.touched()
        self._arm()

    def _arm(self):
        if self._timer:
            self._timer.cancel()
        due = [at for at in (self.sessions.deadline(), self.asking.consent.deadline()) if at is not None]
        self._timer = self._loop.call_at(min(due), self._due) if due else None

    def _due(self):
        self._timer = None
        self.asking.time(self._loop.now())
        self.act()
        self.sessions.time(self._loop.now())
        self.act()

    def _send(self, effect):
        fields = dict(effect.fields)
        for rows in ("roster", "members"):
            if rows in fields:
                fields[rows] = [dict(row, address="" if "%" in row["address"] else row["address"]) for row in self._placed(fields[rows])]
        session, link = self.sessions.get(effect.fields["session"]), self._node.link(effect.to)
        is_member = link is not None and (session is None or session.network in link.networks)
        if not (is_member and self._node.send(effect.to, effect.message, **fields)) and effect.message is proto.INVITE:
            self.sessions.unreachable(session, effect.to)

    async def _fetch(self, session):
        try:
            await self._node.offers.bring(session.app, session.version, session.network, prefer=session.host)
        except Exception as error:  # whatever it was, nobody may wait for these files for ever
            problem = str(error) if isinstance(error, P2PError) else f"an error of this program, {type(error).__name__}"
            if not isinstance(error, P2PError):
                self._loop.report("fetching failed", error)
            self._node.notice(f"! {session.app} could not be fetched: {problem}")
            self._keep("failed", session, by=session.allowed_by, why=problem)
            self.sessions.fetched(session, problem)
        else:
            self.sessions.fetched(session)
        self.act()

    def _start(self, session):
        if session.members[self._me].status not in OPEN:
            return
        try:
            self._node.publisher.catch_up()
            folder = self._node.offers.store.folder(session.app, session.version)
            data = self._node.offers.store.data_folder(session.app)
            session.job = self.jobs.start(session, self._bootstrap(session, folder, data), data)
        except Exception as error:  # whatever it was, nobody may wait for this instance for ever
            if not isinstance(error, P2PError):
                self._loop.report("starting failed", error)
            self._node.notice(f"! {session.app} could not be started: {error}")
            self._keep("failed", session, by=session.allowed_by, why=error)
            self.sessions.finished(session, 127)
            return
        self._keep("start", session, job=session.job.number, by=session.allowed_by, pid=session.job.pid)
        self._node.notice(f"* job {session.job.number}: {session.app} runs here; `attach {session.job.number}` enters it")

    def _bootstrap(self, session, folder, data):
        return {
            "state": self._node.publisher.name, "session": session.number, "token": session.token.hex(), "app": session.app,
            "version": session.version.hex(), "folder": folder, "data": data,
            "framework": os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "home": self._node.home,
            "network": session.network.hex(), "port": self._port_for(session),
            "root_port": self._node.port, "me": self._me.hex(),
            "host": session.host.hex(), "name": self._node.name, "args": session.arguments,
            "roster": [dict(row, id=row["id"].hex()) for row in self._roster(session)]}

    def _roster(self, session):
        """As this node's instance should see it."""
        return [dict(row, name=self._node.label(row["id"])) for row in self._placed(session.roster())]

    def _placed(self, rows):
        """Each member where this node reaches it; what the host said of those whom this node does not know."""
        placed = []
        for row in rows:
            member = self._node.neighbours.table.get(row["id"])
            place = self._node.address_of(member) if member else None
            # On the host's word alone this node's programs must not dial into the world
            said = row["address"] if place or is_nearby(row["address"], self._loop.interfaces()) else ""
            placed.append(dict(row, address=place[0] if place else said))
        return placed

    def _changed(self, effect):
        session, member = effect.session, effect.member
        status = WORDS[member.status]
        is_back = WORDS[effect.before] == "unreachable" and status == "running"
        if member.id != self._me and session.host == self._me and (status in TOLD or is_back):
            self._node.notice(f"* {self._node.label(member.id)}: {session.app} {status}{' again' if is_back else ''}")
        if member.id != self._me and session.host == self._me and member.status != effect.before:
            self._node.log.note("answer", dict(session=f"{session.number:016x}", app=session.app, status=status, exit=member.exit,
                                               node=node_id_text(member.id), name=self._node.label(member.id)))

    # -- jobs

    def _job_ended(self, job):
        session = job.session
        self._keep("end", session, job=job.number, exit=job.exit, why=how_it_ended(job.exit))
        self._node.notice(f"* job {job.number}: {session.app} {how_it_ended(job.exit)}")
        self.sessions.finished(session, job.exit)
        self.act()

    def job(self, number):
        """The job with this number. Raises UserError."""
        job = self.jobs.get(number)
        if job is None:
            raise UserError(f"no job {number}; `jobs` lists them", code="no-such-job")
        return job

    def kill(self, number):
        """End a job. Raises UserError."""
        job = self.job(number)
        if job.state == EXITED:
            raise UserError(f"job {number} has ended already", code="no-such-job")
        self._keep("kill", job.session, job=number, by="owner")
        self.jobs.kill(job)

    def node_gone(self, node_id):
        """A node is dead, has left, or was started anew and knows of nothing."""
        self.sessions.node_gone(node_id)
        self.act()

    def expelled(self, node_id, tag):
        """A node was removed from a network: it takes part in nothing there."""
        self.sessions.node_gone(node_id, tag)
        self.act()

    def met(self, node_id):
        """A link with a node is there, for the first time or again."""
        self.sessions.met(node_id)
        self.act()

    async def stop(self):
        """End all jobs."""
        await self.jobs.stop()
        if self._timer:
            self._timer.cancel()

    # -- ports

    def _port_for(self, session):
        """The host's number where it may be used here and is free, else one of this node's own."""
        low, high = self._node.app_ports or (1, 65535)
        fits = session.host == self._me or low <= session.port <= high and self._loop.free_port(session.port)
        return session.port if fits else self._free_port()

    def _free_port(self):
        low, high = self._node.app_ports or (0, 0)
        if not low:
            return self._loop.free_port()
        size = high - low + 1
        first = int.from_bytes(self._loop.entropy(4), "little") % size
        for step in range(min(size, 4096)):
            port = low + (first + step) % size
            if self._loop.free_port(port):
                return port
        raise UserError(f"all ports from {low} to {high} are in use: start the root with other --app-ports", code="port")

    # -- rows, as CLI.md names their keys

    def members_row(self, session):
        """Who takes part."""
        return [{"id": node_id_text(member.id), "name": self._node.label(member.id), "status": WORDS[member.status],
                 "exit": member.exit} for member in session.members.values()]

    def run_row(self, session):
        """What `run` prints."""
        return {"session": f"{session.number:016x}", "app": session.app, "version": session.version.hex(),
                "job": session.job.number if session.job else None, "nodes": self.members_row(session)}

    def job_rows(self):
        """What `jobs` prints."""
        return [{"job": job.number, "session": f"{job.session.number:016x}", "app": job.session.app, "version": job.session.version.hex(),
                 "host": self._node.label(job.session.host), "port": job.port, "nodes": self.members_row(job.session), "pid": job.pid,
                 "state": job.state, "exit": job.exit, "unseen": job.unseen} for job in self.jobs]

    def published(self):
        """The sessions and jobs of p2pstate, the newest first."""
        sessions = [SessionRow(session.number, session.app, session.version, session.host, WORDS[session.members[self._me].status],
                               len(session.members), 0.0) for session in self.sessions]
        jobs = [JobRow(job.number, job.session.number, job.session.app, job.session.version, job.state, job.pid, job.port,
                       job.exit or 0, job.started_wall, job.ended_wall) for job in self.jobs]
        return tuple(reversed(sessions)), tuple(reversed(jobs))


def _check_arguments(arguments):
    if len(arguments) > 64 or any(len(argument.encode("utf-8", "replace")) > 1024 for argument in arguments):
        raise UserError("too many or too long arguments: at most 64 of 1,024 bytes each; put more into a file", code="arguments")
