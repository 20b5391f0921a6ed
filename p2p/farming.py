"""Tasks and `map` of one instance: pieces.py's decisions, carried over its links and to its own crew.

An instance that has tasks tells its peers how many it works at at once. Any of them may map: it gives the pieces out, its own crew
is one worker among the others, and what the dead had goes to those who are left. Results come as the pieces end.
"""

import struct

from . import child, proto
from .crew import Crew, cores
from .errors import PeerError, UserError
from .fields import ANYTHING, bounded
from .pieces import Pieces
from .text import clean
from .worker import BAD, ENDED, GOOD


class TaskFailed(UserError):
    """A task raised, or ended its process again and again. `.item`: which; `.reason`: the traceback where it ran."""

    def __init__(self, text, item, reason):
        super().__init__(text, code="task")
        self.item = item
        self.reason = reason


class Farming:
    """`instance` gives loop, dispatch, me, joined, links, link(peer); `told` the bootstrap."""

    def __init__(self, instance, told):
        self._instance = instance
        self._tasks = {}
        self._slots = {}               # peer ID -> how many it works at at once
        self._maps = {}                # number that this map's pieces begin with -> _Map
        self._count = 0                # maps so far
        self._crew = Crew(instance.loop, {"dir": told["folder"], "data": told["data"], "args": list(told["args"]),
                                          "framework": told["framework"]}, child.entry, self._finished)
        instance.dispatch.notice(proto.SLOTS, self._on_slots)
        instance.dispatch.notice(proto.TASK, self._on_task)
        instance.dispatch.notice(proto.DONE, self._on_done)

    # -- working

    def task(self, function, workers):
        """This program can do this; the others learn how much at once."""
        name = function.__name__
        if len(name.encode("utf-8")) > 200:
            raise ValueError(f"{name[:40]}...: a task's name has at most 200 bytes")
        self._tasks[name] = function
        if workers is not None or not self._crew.slots:
            self._crew.start(workers or cores())
        self._slots[self._instance.me.id] = self._crew.slots
        for connection in self._instance.links:
            connection.send(proto.SLOTS, count=self._crew.slots)

    def linked(self, peer, connection):
        """A link with a peer begins to serve."""
        if self._tasks:
            connection.send(proto.SLOTS, count=self._crew.slots)
        for work in self._maps.values():
            for number, item in work.pieces.given(peer.id):
                self._post(connection, work, number, item)

    def left(self, peer):
        """It is gone."""
        self._slots.pop(peer.id, None)
        self._crew.drop(peer.id)
        for work in self._maps.values():
            work.pieces.left(peer.id)
            work.news = True

    def close(self):
        """End the processes."""
        self._crew.close()

    def _on_task(self, connection, task):
        if not self._tasks:
            raise PeerError("gives a task to a program that has none", "order")
        if not self._crew.has_room(connection.peer_id):
            raise PeerError("gives more tasks than it was told can be worked at", "limit")
        self._crew.work(connection.peer_id, task.number, task.name, task.item)

    def _finished(self, asker, number, kind, value):
        if asker == self._instance.me.id:
            self._result(asker, number, kind, value)
            return
        connection = self._instance.links.get(asker)
        if connection is not None and connection.is_ready:       # else it asks again on the next link
            connection.send(proto.DONE, number=number, kind=kind, value=value)

    # -- mapping

    def map(self, function, items, in_order, turn_until):
        """Generator of (item, result); `turn_until(condition)` lets the network move."""
        name = getattr(function, "__name__", "")
        if self._tasks.get(name) is not function:
            raise ValueError(f"app.map wants one of this program's tasks: put @app.task above {name or repr(function)}")
        self._count += 1
        work = _Map(name, Pieces(items, in_order), self._count << 40)
        self._maps[work.first] = work
        for worker, slots in self._slots.items():
            work.pieces.worker(worker, slots)
        try:
            while not work.pieces.is_over:
                self._give(work)
                found = work.pieces.take()
                if found is not None:
                    yield self._outcome(work, *found)
                elif not work.pieces.is_over:
                    self._wait(work, turn_until)
        finally:
            del self._maps[work.first]

    def _wait(self, work, turn_until):
        if not work.pieces.has_workers:
            raise UserError("nobody is here who could work: on Windows processes cannot be started for it, and no other node has joined",
                            code="workers")
        work.news = False
        turn_until(lambda: work.news)

    @staticmethod
    def _outcome(work, item, is_good, value):
        if is_good:
            try:
                result, at = ANYTHING.unpack(value, 0)
            except (PeerError, struct.error):
                at = -1
            if at == len(value):
                return item, result
            value = "what came back cannot be read"
        last = value.strip().split("\n")[-1]
        raise TaskFailed(f"{work.name}({str(item)[:80]}) failed: {clean(last, 300)}", item, value)

    def _give(self, work):
        for worker, number, item in work.pieces.give():
            if worker == self._instance.me.id:
                self._crew.work(worker, work.first + number, work.name, self._packed(item))
            else:
                connection = self._instance.links.get(worker)
                if connection is not None and connection.is_ready:
                    self._post(connection, work, number, item)
        self._instance.loop.flush()

    def _post(self, connection, work, number, item):
        connection.send(proto.TASK, number=work.first + number, name=work.name, item=self._packed(item))

    @staticmethod
    def _packed(item):
        try:
            packed = ANYTHING.pack(ANYTHING.normal(item))
            bounded(len(packed))
        except (TypeError, ValueError) as error:
            raise type(error)(f"app.map: the item {str(item)[:80]}: {error}") from None
        return packed

    def _on_slots(self, connection, told):
        self._slots[connection.peer_id] = told.count
        for work in self._maps.values():
            work.pieces.worker(connection.peer_id, told.count)
            work.news = True

    def _on_done(self, connection, told):
        self._result(connection.peer_id, told.number, told.kind, told.value)

    def _result(self, worker, number, kind, value):
        first = number >> 40 << 40
        work = self._maps.get(first)
        if work is None:
            return                     # the map was given up
        work.news = True
        if kind == ENDED:
            work.pieces.ended(worker, number - first)
        elif kind in (GOOD, BAD):
            work.pieces.done(worker, number - first, kind == GOOD, value if kind == GOOD else value.decode("utf-8", "replace"))
        else:
            raise PeerError("tells of a task what there is not", "malformed")


class _Map:
    """One that is going on."""

    def __init__(self, name, pieces, first):
        self.name = name
        self.pieces = pieces
        self.first = first             # number of its first piece; each map has numbers of its own
        self.news = True               # may there be something to take or to give?
