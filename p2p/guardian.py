"""A root and the programs that it has started: lets them in, tells them who takes part, and sees to their end.

A program proves by its session's token that it is this root's child. It is told the whole roster each time: the
newest, never faster than it reads and never more often than it matters.

The end is asked for and then seen to. A program that has attached hears END and has END_AFTER to exit by itself; after
that it is killed, busy or not. One that has never attached cannot hear it: it gets the signals of a closed terminal,
soon, or, if it has only just started, when it has had the time to attach. One that has attached and let go again is
on its way out, and its exit code is its own.
"""

from . import limits, proto
from .errors import LinkDown, PeerError
from .jobs import EXITED, RUNNING

TELL_PAUSE = 0.002           # s for each member, between two rosters to one program: when a room of 255 comes, each has 20 KB
TOLD_AHEAD = 1 << 17         # bytes of rosters on their way to a program that does not read
TO_ATTACH = 5.0              # s from its start in which a program may attach: Python, TLS and imports on a loaded computer
UNATTACHED = 1.0             # s that one which did not gets nevertheless: it may attach right now


class Guardian:
    """`roster(session)` gives the rows for a program here; `act()` carries out what the sessions decide."""

    def __init__(self, loop, dispatch, sessions, jobs, roster, act):
        self.connections = {}         # job -> its connection
        self._loop = loop
        self._sessions = sessions
        self._jobs = jobs
        self._roster = roster
        self._act = act
        self._telling = {}            # connection that is being told a roster -> is a newer one due?
        dispatch.notice(proto.LISTENING, self._on_listening)
        dispatch.notice(proto.END, self._on_end)

    # -- its coming and going

    def adopt(self, connection):
        """An instance of this node shows its session's token."""
        session = self._sessions.get(connection.hello.session)
        if session is None or session.job is None or session.job.state == EXITED or connection.hello.token != session.token:
            raise PeerError("claims to be an instance of this node and has no session's token", "token")
        self.connections[session.job] = connection
        session.job.has_attached = True
        self.tell(session)
        if session.is_ending:
            self._say_end(connection, session)

    def lost(self, connection):
        """An instance's connection ended."""
        for job, known in list(self.connections.items()):
            if known is connection:
                del self.connections[job]

    def _job_of(self, connection):
        return next((job for job, known in self.connections.items() if known is connection), None)

    def _on_listening(self, connection, told):
        job = self._job_of(connection)
        if job is not None and job.state != EXITED:      # a child of an ended program may still hold the connection
            job.port, job.state = told.port, RUNNING
            self._sessions.listening(job.session, told.port)
            self._act()

    def _on_end(self, connection, _told):
        job = self._job_of(connection)
        if job is not None:
            self._sessions.ask_for_end(job.session)
            self._act()

    # -- the roster

    def tell(self, session):
        """It has changed."""
        connection = self.connections.get(session.job)
        if connection is None:
            return
        is_first = connection not in self._telling
        self._telling[connection] = True
        if is_first:
            self._loop.start(self._keep_told(connection, session))

    async def _keep_told(self, connection, session):
        """The newest, once the earlier ones are read: a program may be busy while a whole room comes and goes."""
        try:
            while self._telling[connection]:
                await connection.room(TOLD_AHEAD)
                self._telling[connection] = False
                connection.send(proto.ROSTER, session=session.number, members=self._roster(session))
                await self._loop.sleep(TELL_PAUSE * len(session.members))
        except LinkDown:
            pass
        finally:
            del self._telling[connection]

    # -- the end

    def end(self, session):
        """The session ends here."""
        job = session.job
        connection = self.connections.get(job)
        if connection is not None:
            self._say_end(connection, session)
        elif job is not None and job.has_attached:
            self._loop.call_later(limits.END_AFTER, self._jobs.finish_off, job)
        elif job is not None:
            since_start = self._loop.wall() - job.started_wall
            self._loop.call_later(max(UNATTACHED, TO_ATTACH - max(0.0, since_start)), self._end_unattached, job)

    def _say_end(self, connection, session):
        connection.send(proto.END, session=session.number)
        self._loop.call_later(limits.END_AFTER, self._jobs.finish_off, session.job)

    def _end_unattached(self, job):
        if not job.has_attached:
            self._jobs.kill(job, limits.END_AFTER)
