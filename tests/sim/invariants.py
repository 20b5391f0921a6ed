"""What must hold at every moment, looked at each virtual second; tables of more than ten computers in turn, and all before each storm.

identity   who is in a table as verified is who has that key, at the address where it lives
agreement  two that can talk see each other within AGREED; who has ended is alive nowhere after MISSED
whole      every version that a disk shows is complete and has the bytes that its name promises
exits      each run is over in time at its host, with the exit status that the program really had
bounded    no table, queue, timer, task or log grows beyond what its number of peers explains

A handler or a task that fails by a bug breaks the run, too (World.failed).
"""

import hashlib

from p2p import limits, sessions
from p2p.errors import PeerError
from p2p.log import BURST, MAX_FILE, REFILL
from p2p.membership import ALIVE
from p2p.sync.manifest import EMPTY, Manifest

from .host import HOME
from .loop import SimLoop
from .network import CAPACITY
from .promises import AGREED, MISSED, OVER
from .world import Broken

FINAL = (sessions.EXITED, sessions.DENIED, sessions.EXPIRED, sessions.UNREACHABLE, sessions.FAILED)
CANNOT_START = 127
AT_ONCE = 10                 # computers whose tables are looked at each second; those of all before each storm and at the end


class Invariants:
    """Looks at a world, each second from `start` on."""

    def __init__(self, world, network):
        self.world = world
        self.network = network
        self.most = {}               # what -> the largest number seen
        self.ended = 0               # sessions whose end was looked at
        self._looked = 0
        self._changes = {}           # Host's Files -> changes when its versions were last looked at
        self._whole = {}             # (files, name, version) -> what its files were
        self._sessions = {}          # (host, start, number) -> [since, is over]
        self._too_many = ""
        self._lines = {}             # (loop, kind of log line) -> times
        world.on_start.append(self._started)

    def start(self):
        """Begin to look."""
        self.world.add(1.0, self._look)

    def _look(self):
        self.world.add(1.0, self._look)
        self._looked += 1
        self._look_at(AT_ONCE)

    def look_at_all(self):
        """At everybody and everything, as before the next storm."""
        self._look_at(len(self.world.hosts))

    def _look_at(self, most):
        up = [host for host in self.world.hosts if host.is_up]
        turns = max(1, -(-len(up) // most))          # each compares itself with all others: of many some, in turn
        some = up[self._looked % turns::turns]
        self.identity(some)
        self.agreement(some, up)
        self.whole()
        self.exits(up)
        if self._too_many:
            self._broken("bounded", self._too_many)
        if self._looked % 10 == 0:
            self.bounded(up)

    def _broken(self, what, text):
        raise Broken(f"{what}: {text}")

    # -- who is who

    def identity(self, hosts):
        """Nobody is in a table under another's ID."""
        truth = self.world.identities
        for host in hosts:
            for connection in host.node.links:
                other = connection.channel.other.loop.host
                if truth.get(connection.peer_id) is not other:
                    self._broken("identity", f"{host.name} has a link with {other.name} under another's ID")
            for member in host.node.neighbours.table:
                if member.is_self or not member.verified:
                    continue
                owner = truth.get(member.id)
                if owner is None or member.name != owner.name:
                    self._broken("identity", f"{host.name} has {member.name} under the ID of {owner.name if owner else 'nobody'}")
                if member.state == ALIVE and member.addresses[0][0] != owner.ip:
                    self._broken("identity", f"{host.name} has {owner.name} alive at {member.addresses[0][0]}, it is at {owner.ip}")

    # -- who sees whom

    def agreement(self, hosts, up):
        """Everybody sees whom he can talk to, and nobody who has ended."""
        now = self.world.now
        for host in hosts:
            table = host.node.neighbours.table
            for member in table:
                if member.state == ALIVE and not member.is_self:
                    self._must_be_there(host, member, now)
            if now - max(host.disturbed, self.network.disturbed) <= AGREED:
                continue
            for other in up:
                if other is host or now - other.disturbed <= AGREED or not self.network.passes(host, other) \
                        or not self.network.passes(other, host):
                    continue
                member = table.get(other.identity)
                link = host.node.link(other.identity)
                if member is None or member.state != ALIVE or link is None:
                    state = member.state if member else "unknown"
                    self._broken("agreement", f"{host.name} and {other.name} can talk for {AGREED:g} s, "
                                              f"but {host.name} has it as {state}, {'with' if link else 'without'} a link")

    def _must_be_there(self, host, member, now):
        other = self.world.identities[member.id]
        is_gone = other.identity != member.id or not other.is_up
        if is_gone and now - max(other.disturbed, host.disturbed) > MISSED:
            self._broken("agreement", f"{host.name} has {other.name} alive, which ended {now - other.disturbed:.1f} s ago")

    # -- versions

    def whole(self):
        """No version is visible that is not whole and verified, also on the disks of the dead."""
        for host in self.world.hosts:
            files = host.disk
            if self._changes.get(files) != files.changes:
                self._changes[files] = files.changes
                self._look_at_versions(host, files)

    def _look_at_versions(self, host, files):
        home = _at(files.root, HOME)
        apps, manifests = (_at(home, name) if home else None for name in ("apps", "manifests"))
        if apps is None or manifests is None:
            return
        for name, versions in apps.data.items():
            for text, tree in versions.data.items():
                if text not in manifests.data:
                    continue
                found = dict(_walk(tree, ""))
                state = [(path, file.number, file.writes) for path, file in found.items()], manifests.data[text].number
                if self._whole.get((files, name, text)) != state:
                    self._check_version(host, name, text, found, bytes(manifests.data[text].data))
                    self._whole[files, name, text] = state

    def _check_version(self, host, name, text, found, data):
        what = f"{host.name} shows {name} {text[:12]}"
        try:
            manifest = Manifest.decode(data)
        except PeerError as error:
            self._broken("whole", f"{what}, whose manifest is none: {error}")
        if manifest.version.hex() != text:
            self._broken("whole", f"{what}, whose manifest is another version's")
        wanted = {entry.path: entry.digest for entry in manifest.files}
        have = {path: hashlib.sha256(file.data).digest() if file.data else EMPTY for path, file in found.items() if file.kind == "f"}
        if wanted != have:
            wrong = sorted(path for path in wanted.keys() | have.keys() if wanted.get(path) != have.get(path))
            self._broken("whole", f"{what}, in which {wrong} are not what they should be")

    # -- runs

    def exits(self, up):
        """Each run ends in time, with the truth about how."""
        now = self.world.now
        for host in up:
            for session in host.node.launcher.sessions:
                if session.host != host.identity:
                    continue
                known = self._sessions.setdefault((host, host.starts, session.number), [now, False])
                if session.is_over and not known[1]:
                    known[1] = True
                    self._check_end(host, session, known[0])
                elif not session.is_over and now - max(known[0], host.disturbed) > OVER:
                    self._broken("exits", f"{host.name}: the run of {session.app} began {now - known[0]:.0f} s ago and is not over: "
                                          f"{self._statuses(session)}")
            self._check_jobs(host, now)

    def _check_end(self, host, session, since):
        self.ended += 1
        for member in session.members.values():
            other = self.world.identities[member.id]
            who = f"{host.name}: the run of {session.app} is over, and {other.name}"
            if member.status not in FINAL:
                self._broken("exits", f"{who} is {sessions.proto.STATUS[member.status]}")
            disturbed = max(host.disturbed, other.disturbed, self.network.disturbed)
            ran = self.world.exits.get((session.number, other.name))
            if member.status == sessions.EXITED and ran != member.exit and not (ran is None and member.exit == CANNOT_START):
                self._broken("exits", f"{who} exited with {member.exit}, the program with {ran}")
            if member.status == sessions.UNREACHABLE and disturbed < since - MISSED:
                self._broken("exits", f"{who} is unreachable though nothing happened to it")

    def _check_jobs(self, host, now):
        running = {program.pid for program in host.programs}
        for job in host.node.launcher.jobs:
            if job.state != "exited" and job.pid not in running and job.session.number in self._finished(host):
                self._broken("exits", f"{host.name}: job {job.number} is {job.state}, its program has ended")

    def _finished(self, host):
        """Sessions whose program here ended more than a second ago, lest one be caught between its end and the news of it."""
        return host.finished_before(self.world.now - 1.0)

    @staticmethod
    def _statuses(session):
        return " ".join(f"{member.name}:{sessions.proto.STATUS[member.status]}" for member in session.members.values())

    # -- bounds

    def _started(self, host):
        loop = host.loop

        def line(text, is_kept):
            if is_kept:            # caused by this user's word alone, which has no budget
                return
            kind = text.split(" ", 2)[2].partition(":")[0]
            times = self._lines.setdefault((loop, kind), [])
            times.append(self.world.now)
            while times[0] < self.world.now - REFILL:
                del times[0]
            reasons = sum(spent[0] == kind for spent in host.node.log._spent)
            if len(times) > 2 * (BURST + 1) * reasons:
                # Told at the next look: raised here, it would be a handler's failure
                self._too_many = f"{host.name}: {len(times)} lines of kind {kind} in the log within {REFILL:g} s"
        host.node.log.followers.append(line)

    def bounded(self, up):
        """Nothing grows without bound."""
        peers = len(self.world.identities)
        timers = {}
        for timer in self.world.timers:
            loop = getattr(timer.callback, "__self__", None)
            if isinstance(loop, SimLoop):
                timers[loop] = timers.get(loop, 0) + 1
        for host in up:
            node, loop = host.node, host.loop
            members = len(list(node.neighbours.table))
            links = node.links.everything()
            jobs = len(host.programs)
            self._bound(host, "timers", timers.get(loop, 0), 60 + 12 * members + 4 * jobs)
            self._bound(host, "tasks", len(loop.tasks), 20 + 8 * members)
            self._bound(host, "streams", len(loop.channels), 20 + 6 * peers + 2 * jobs)
            self._bound(host, "links", len(links) - len(node.links._unkept), peers + jobs)
            self._bound(host, "links that were not kept", len(node.links._unkept), peers)
            self._bound(host, "members", members, limits.MAX_MEMBERS)
            self._bound(host, "kept", len(node.client._kept), members)
            self._bound(host, "attempts", len(node.client._attempts), 20)
            self._bound(host, "handshakes", node.server.pending, limits.MAX_PENDING)
            self._bound(host, "views", len(node.neighbours._views) + len(node.neighbours._asked), 2 * members)
            self._bound(host, "waiting", len(node.changed.waiting), 20)
            self._bound(host, "offers", len(node.offers.catalogue.offers()), limits.MAX_OFFERS)
            self._bound(host, "fetches", len(node.offers._bringing) + len(node.offers._to_verify), 20 + members)
            self._bound(host, "sessions", len(list(node.launcher.sessions)), limits.MAX_SESSIONS)
            self._bound(host, "jobs", len(list(node.launcher.jobs)), limits.MAX_JOBS + limits.JOBS_KEPT)
            self._bound(host, "requests", len(node.asking.consent.requests()), limits.MAX_REQUESTS_OPEN * peers)
            self._bound(host, "instances", len(node.launcher.guardian.connections), jobs + 8)
            for connection in links:
                self._bound(host, "queued bytes", connection.queued, limits.MAX_BUFFERED + limits.MAX_BODY)
                self._bound(host, "requests in flight", len(connection._exchange), limits.MAX_REQUESTS)
            for channel in loop.channels:
                self._bound(host, "bytes in a kernel", channel._unread, CAPACITY)
            for name in ("log", "log.1", "log.runs", "log.runs.1"):
                file = _at(host.disk.root, f"{HOME}/{name}")
                self._bound(host, "bytes of log", len(file.data) if file else 0, MAX_FILE + 4096)

    def _bound(self, host, what, number, most):
        if number > self.most.get(what, 0):
            self.most[what] = number
        if number > most:
            self._broken("bounded", f"{host.name} has {number} {what}, {most} are explained")


def _at(file, path):
    for part in path.strip("/").split("/"):
        file = file.data.get(part) if file is not None and file.kind == "d" else None
    return file


def _walk(folder, above):
    for name, file in folder.data.items():
        path = f"{above}{name}"
        yield path, file
        if file.kind == "d":
            yield from _walk(file, path + "/")
