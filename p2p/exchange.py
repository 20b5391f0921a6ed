"""Requests and their answers on one connection: who waits here for the other end, and what is worked on for it.

A request's id is of its sender's choosing and means nothing else; each way has its own. Nothing is kept of a request whose
deadline has passed: an answer that comes later finds nobody and is dropped.
"""

from . import limits, proto
from .errors import LinkDown, P2PError, PeerError, Refusal, UserError
from .tasks import Future


_NOBODY = (None, None, None)      # waits for an answer that comes too late


class Exchange:
    """Of one connection."""

    __slots__ = ("_connection", "_last", "_asked", "_serving", "_timer")

    def __init__(self, connection):
        self._connection = connection
        self._last = 0
        self._asked = {}        # id -> (Future, Message, its deadline or None)
        self._timer = None      # for the first of the deadlines, or one that is past: a timer for each costs more than all the rest
        self._serving = {}      # id -> Task that works on the answer

    def __len__(self):
        """Requests in flight, both ways."""
        return len(self._asked) + len(self._serving)

    # -- what this side asks

    def ask(self, message, timeout):
        """(id, Future of the answer's fields); the id is 0 where it cannot be asked, and the Future has failed."""
        loop = self._connection.loop
        future = Future(loop)
        if len(self._asked) >= limits.MAX_REQUESTS:
            future.fail(LinkDown("too many requests wait for this peer's answer", "busy"))
            return 0, future
        self._last = request = self._last % 0xFFFFFFFF + 1
        deadline = None
        if timeout is not None:
            deadline = loop.now() + timeout
            if self._timer is None or deadline < self._timer.when:
                self._watch(deadline)
        self._asked[request] = (future, message, deadline)
        return request, future

    def _watch(self, deadline):
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._connection.loop.call_at(deadline, self._overdue)

    def _overdue(self):
        self._timer = None
        now = self._connection.loop.now()
        for request, (future, message, deadline) in list(self._asked.items()):
            if deadline is not None and deadline <= now:
                del self._asked[request]
                future.fail(LinkDown(f"no answer to {message.name}", "timeout"))
        first = min((deadline for _, _, deadline in self._asked.values() if deadline is not None), default=None)
        if first is not None:
            self._watch(first)

    def answered(self, request, body):
        """The other end's answer. Raises PeerError where the bytes do not fit."""
        future, message, _ = self._asked.pop(request, _NOBODY)
        if future is None:
            return
        try:
            future.set(message.reply.unpack_all(body))
        except PeerError as error:
            future.fail(error)
            raise

    def refused(self, request, body):
        """The other end's ERROR."""
        future = self._asked.pop(request, _NOBODY)[0]
        if future is not None:
            future.fail(Refusal(*proto.unpack_error(body)))

    # -- what the other side asks, where the answer takes more than a turn

    def serve(self, message, request, coroutine):
        """Run a coroutine and answer with the fields it returns, or with the ERROR that it raises."""
        if request in self._serving or len(self._serving) >= limits.MAX_REQUESTS:
            coroutine.close()
            self._connection.refuse(message.number, request, proto.BUSY, "too many requests at once")
            return
        task = self._serving[request] = self._connection.loop.start(coroutine)
        task.add_callback(lambda done: self._served(message, request, done))

    def _served(self, message, request, task):
        self._serving.pop(request, None)
        connection, error = self._connection, task.error
        if not connection.is_open:
            return
        if error is None:
            connection.reply(message, request, **(task.result() or {}))
        elif isinstance(error, PeerError):
            connection.fail(error)
        elif isinstance(error, Refusal):
            connection.refuse(message.number, request, error.code, str(error))
        else:
            if not isinstance(error, P2PError):      # to look at the error was to take notice of it
                connection.loop.report("answering a request failed", error)
            connection.refuse(message.number, request, proto.FAILED, str(error) if isinstance(error, UserError) else "it failed there")

    # -- the end

    def settle(self, error):
        """The connection is over: who waits hears why, and nothing is worked on for nobody."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asked, self._asked = self._asked, {}
        for future, _, _ in asked.values():
            future.fail(error)
        serving, self._serving = self._serving, {}
        for task in serving.values():
            task.cancel()
