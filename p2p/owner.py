"""The owner at the door: commands that this node's own user sends from other processes of this computer.

A command comes as words, runs in the root like one typed at its own shell, and prints through a Caller: the one
object that knows where output goes and where keys come from. Whether that is a connection or this very process's
terminal, the verbs cannot tell.

The node hands connections over only if they showed this node's own key and came from loopback; both are checked
here once more, since whoever is let in here may do everything the user may. Which verbs there are is not known
on this floor: a face brings them along (`open`).

A command never runs ahead of the reader: who prints much waits for `room`. The bound is far below the one at
which a connection counts as stalled, so a pager that is left open over lunch costs nothing and breaks nothing.
"""

import json
import os
from collections import deque

from . import proto
from .errors import PeerError, Refusal
from .tasks import Event

ROOT_FILE = "root.json"        # below the home: {"pid", "port", "state"}; the home's lock says whether it is true
MAX_OUTPUT = 1 << 16           # bytes in one OUTPUT
MAX_AHEAD = 1 << 18            # bytes on their way to a reader before a command waits
MAX_KEYS = 1 << 20             # bytes typed ahead of a command that does not read; a terminal drops far earlier
MAX_NOTICE = 8000              # bytes; proto.NOTICE carries 8192


class Caller:
    """Who gave a command. Children say what `write`, `room` and `raw` do."""

    @property
    def hears_notices(self):
        """Are notices shown to this person too? Without, what the command says is all that is seen."""
        return False

    def __init__(self, loop, as_json=False, yes=False, rows=0, columns=0, color=False, is_terminal=False, folder=""):
        self.loop = loop
        self.as_json = as_json
        self.yes = yes
        self.rows = rows
        self.columns = columns               # of the terminal that shows stdout; 0: none, nothing is cut
        self.color = color
        self.is_terminal = is_terminal       # is stderr one? Progress is shown there
        self.folder = folder                 # where relative paths begin
        self.interrupted = loop.future()
        self.resized = Event(loop)
        self._keys = deque()
        self._keys_size = 0
        self._keys_ended = False
        self._arrived = Event(loop)

    def write(self, stream, data):
        """Print bytes on proto.STDOUT or STDERR; never blocks."""
        raise NotImplementedError

    @property
    def has_room(self):
        """Should whoever relays output go on?"""
        return True

    async def room(self):
        """Wait until the reader has caught up."""

    def raw(self, wanted):
        """From now on each key as it is typed, or no keys at all."""
        raise NotImplementedError

    def typed(self, data):
        """Keys arrived; b"": none will come any more."""
        if not data:
            self._keys_ended = True
        elif self._keys_size < MAX_KEYS:
            self._keys.append(data)
            self._keys_size += len(data)
        self._arrived.notify()

    async def read(self):
        """The next keys; b"" at the end of the input."""
        while not self._keys and not self._keys_ended:
            await self._arrived.wait()
        if not self._keys:
            return b""
        data = self._keys.popleft()
        self._keys_size -= len(data)
        return data

    def resize(self, rows, columns):
        """The terminal has this size now."""
        self.rows, self.columns = rows, columns
        self.resized.notify()

    def interrupt(self):
        """The person gave the command up, or is gone."""
        self.interrupted.set(None)


class RemoteCaller(Caller):
    """A command line or a shell in another process."""

    def __init__(self, connection, fields, watchers):
        super().__init__(connection.loop, fields.as_json, fields.yes, fields.rows, fields.columns, fields.color,
                         fields.is_terminal, fields.folder)
        self._connection = connection
        self._number = fields.command
        self._watchers = watchers

    @property
    def hears_notices(self):
        """Does its process show them?"""
        return self._connection in self._watchers

    def write(self, stream, data):
        """As OUTPUT frames."""
        for at in range(0, len(data), MAX_OUTPUT):
            self._connection.send(proto.OUTPUT, command=self._number, stream=stream, data=data[at:at + MAX_OUTPUT])

    async def room(self):
        """Until less than MAX_AHEAD is on its way."""
        await self._connection.room(MAX_AHEAD)

    def raw(self, wanted):
        """Ask the other process for it."""
        self._connection.send(proto.RAW, command=self._number, raw=wanted)


class Owners:
    """`node` gives owner_dispatch, identity, disk, path, port, publisher and watchers."""

    def __init__(self, node):
        self._node = node
        self._run = None
        self._callers = {}          # (connection, number) -> RemoteCaller
        self._watchers = {}         # connection -> callable(text)
        dispatch = node.owner_dispatch
        dispatch.raw(proto.COMMAND, self._on_command)
        dispatch.notice(proto.INPUT, self._on_input)
        dispatch.notice(proto.RESIZE, self._on_resize)
        dispatch.notice(proto.INTERRUPT, self._on_interrupt)
        dispatch.request(proto.WATCH, self._on_watch)

    def open(self, run):
        """Let commands in and say where. `await run(words, caller)` is an exit code."""
        self._run = run
        about = {"pid": os.getpid(), "port": self._node.port, "state": self._node.publisher.name}
        self._node.disk.write_atomic(self._node.path(ROOT_FILE), json.dumps(about).encode("ascii"))

    def close(self):
        """No more commands."""
        if self._run is not None:
            self._run = None
            self._node.disk.remove_tree(self._node.path(ROOT_FILE))

    def adopt(self, connection):
        """A connection in the role of the owner is ready."""
        if connection.peer_id != self._node.identity.node_id or not connection.channel.is_loopback:
            raise PeerError(f"{connection.channel.address[0]} claims to be this node's owner", "role")

    def lost(self, connection):
        """It is gone, and with it whoever waited for its commands."""
        for key in [key for key in self._callers if key[0] is connection]:
            self._callers.pop(key).interrupt()
        watcher = self._watchers.pop(connection, None)
        if watcher is not None:
            self._node.watchers.remove(watcher)

    # -- messages

    def _on_command(self, connection, request, body):
        fields = proto.COMMAND.unpack(body)
        key = (connection, fields.command)
        if key in self._callers:
            raise PeerError("two commands with one number", "command")
        # Known before its task has taken the first step: an INTERRUPT may stand right behind it.
        caller = self._callers[key] = RemoteCaller(connection, fields, self._watchers)
        connection.serve(proto.COMMAND, request, self._command(key, fields.words, caller))

    async def _command(self, key, words, caller):
        try:
            if self._run is None:
                raise Refusal(proto.UNSUPPORTED, "this root takes no commands now; try again in a moment")
            return {"exit": await self._run(words, caller)}
        finally:
            self._callers.pop(key, None)

    def _caller(self, connection, fields):
        return self._callers.get((connection, fields.command))

    def _on_input(self, connection, fields):
        caller = self._caller(connection, fields)
        if caller is not None:
            caller.typed(fields.data)

    def _on_resize(self, connection, fields):
        caller = self._caller(connection, fields)
        if caller is not None:
            caller.resize(fields.rows, fields.columns)

    def _on_interrupt(self, connection, fields):
        caller = self._caller(connection, fields)
        if caller is not None:
            caller.interrupt()

    async def _on_watch(self, connection, _fields):
        def watcher(text):
            if connection.has_room:
                connection.send(proto.NOTICE, text=text.encode("utf-8", "replace")[:MAX_NOTICE].decode("utf-8", "ignore"))
        if connection not in self._watchers:
            self._watchers[connection] = watcher
            self._node.watchers.append(watcher)
        return {}
