"""What an application imports: `p2p.attach()` gives the App; everything that happens is an object of a class.

    app = p2p.attach("chat")
    for event in app:                       # the loop form
        if isinstance(event, p2p.Line): ...

Three forms, one engine: iterate over the app; or register callbacks with `@app.on(Class)` and `app.run()`; or wait
for one thing with `app.wait(Class)`. There is no thread: the network moves while the program is in one of the app's
calls. Handlers are never entered from inside another: a `request` that waits for its answer lets other events queue up.

Each peer gives exactly one Join before its first message and at most one Leave after its last.
"""

import os
import sys

from . import child
from .errors import LinkDown, Refusal, UserError
from .instance import Instance, Peer, pack, unpack
from .message import Eof, Gone, Line, Message, Timeout
from .proto import DATA, PING

__all__ = ["App", "Peer", "attach"]

WAIT = 10.0               # s for the roster, unless said otherwise: one absent person never blocks the others
MAX_LINE = 1 << 16        # bytes of a typed line; a longer one comes in pieces
LINES_AHEAD = 1000        # events that may wait before more of the user's input is read
DELIVERY = 5.0            # s that `end` gives to what was sent before it
FAREWELL = 1.0            # s for goodbyes at exit

_app = None


def attach(name=None, wait=WAIT) -> "App":
    """Take part in the session that this process was started for.

    Returns when everybody of the roster is connected or known not to come, or after `wait` seconds; who comes later
    is a Join. `name` is for the reader of the program. Called again it returns the same App. Raises SystemExit, with a
    line that says what to do, in a process that no root started.
    """
    global _app
    if _app is None:
        if child.bootstrap is None:
            raise SystemExit(f"{name or 'this program'} is an application: share its folder and start it with "
                             "`python p2pframe.py run NAME [NODE...]`")
        _app = App(child.bootstrap)
        child.on_exit(_app.close)
        _app._turn_until(lambda: _app._instance.everybody_answered() or _app._instance.ended, wait)
    return _app


class App:
    """One instance of an application, and its view of the others."""

    def __init__(self, told):
        self._instance = Instance(told)
        self._loop = self._instance.loop
        self._events = self._instance.events
        self._handlers = {}
        self._input = None
        self._state_name = told["state"]
        self.args = list(told["args"])         # what stood behind `--`
        self.dir = told["folder"]              # the installed version, exactly as shared
        self.data = told["data"]               # a folder of the application's own that survives versions

    # -- who

    @property
    def me(self) -> Peer:
        """This instance."""
        return self._instance.me

    @property
    def peers(self) -> list:
        """The others that are here, in the order in which they came."""
        return list(self._instance.joined)

    @property
    def host(self) -> Peer:
        """The instance whose user started the session; the invitation named it, and it never changes."""
        return self._instance.host

    @property
    def is_host(self) -> bool:
        """Is that this one?"""
        return self.host is self.me

    def nodes(self) -> list:
        """The network's table, as the root keeps it in p2pstate: named tuples with id, name, address, state and more."""
        from .state import StateReader
        reader = StateReader(self._state_name)
        try:
            return list(reader.read().nodes)
        finally:
            reader.close()

    # -- sending

    def send(self, peer: Peer, message: Message) -> None:
        """Send to one peer. Waits while it has too much unread. Raises Gone."""
        connection = self._instance.send(peer, message)
        self._loop.flush()
        if not connection.has_room:
            self._turn_until(lambda: connection.has_room or not connection.is_open)

    def broadcast(self, message: Message) -> None:
        """Send to all peers that are here."""
        for peer in self.peers:
            try:
                self.send(peer, message)
            except Gone:
                pass          # its Leave is on the way

    def request(self, peer: Peer, message: Message, timeout: float = 10.0):
        """Send, and wait for the message that the peer's handler returns. Raises Gone, Timeout; UserError if it was refused."""
        future = self._instance.request(peer, message, timeout)
        self._loop.flush()
        self._turn_until(lambda: future.done)
        try:
            answer = unpack(future.result())
        except Refusal as refusal:
            raise UserError(f"{peer.name} did not answer {type(message).__name__}: {refusal}")
        except LinkDown as error:
            if error.kind == "timeout":
                raise Timeout(f"{peer.name} did not answer {type(message).__name__} in {timeout:g} s")
            raise Gone(f"{peer.name} is gone")
        if answer is None:
            raise UserError(f"{peer.name} answered with a message class that this program does not have")
        answer.sender = peer
        return answer

    def reply(self, message: Message, answer: Message) -> None:
        """Answer a message that came by `request`; for the loop form, where no handler's return value does it."""
        waiting = message.__dict__.pop("request", None)
        if waiting is not None:
            connection, number = waiting
            fields = DATA.unpack(pack(answer))
            connection.reply(DATA, number, schema=fields.schema, fields=fields.fields)
            self._loop.flush()

    # -- receiving

    def on(self, kind):
        """Decorator: call the function with each event of this class, in `run`. What it returns answers a request."""
        def register(function):
            self._handlers[kind] = function
            return function
        return register

    def run(self) -> None:
        """Hand events to their handlers until the session ends. Events without a handler are passed over."""
        for event in self:
            self._handle(event)

    def _handle(self, event):
        for kind in type(event).__mro__:
            handler = self._handlers.get(kind)
            if handler is not None:
                answer = handler(event)
                if isinstance(answer, Message):
                    self.reply(event, answer)
                return

    def __iter__(self):
        return self

    def __next__(self):
        event = self.poll(None)
        if event is None:
            self.close()
            raise StopIteration
        return event

    def poll(self, timeout=0.0):
        """The next event, or None: nothing within `timeout` seconds (None: as long as it takes), or the session is over."""
        self._read_input()
        self._turn_until(lambda: self._events or self._instance.ended, timeout)
        if not self._events:
            return None
        event = self._events.popleft()
        if len(self._events) == LINES_AHEAD:
            self._instance.drained()
        return event

    def wait(self, kind, sender=None, timeout=None):
        """The next event of this class (from this peer); others stay in the queue. Raises Timeout, and Gone when the session ends."""
        self._read_input()

        def find():
            return next((event for event in self._events
                         if isinstance(event, kind) and (sender is None or getattr(event, "sender", None) is sender)), None)
        self._turn_until(lambda: find() is not None or self._instance.ended, timeout)
        found = find()
        if found is None:
            if self._instance.ended:
                raise Gone("the session has ended")
            raise Timeout(f"no {kind.__name__} in {timeout:g} s")
        for at, event in enumerate(self._events):
            if event is found:
                del self._events[at]
                break
        return found

    def _turn_until(self, condition, timeout=None):
        deadline = None if timeout is None else self._loop.now() + timeout
        while not condition():
            left = None if deadline is None else deadline - self._loop.now()
            if left is not None and left < 0:
                return
            self._loop.turn(left)

    # -- the user

    def _read_input(self):
        if self._input is None:
            self._input = _Input(self._loop, self._events)
        self._input.wanted()

    def print(self, *values, raw=False) -> None:
        """Show the values and end the line. Control characters are made harmless, since texts come from others; `raw` leaves them."""
        text = " ".join(str(value) for value in values)
        if not raw:
            text = "".join(char if char.isprintable() or char in "\t\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    # -- the end

    def quit(self, code=0) -> None:
        """Leave, alone: the others get a Leave, this process ends with `code`."""
        self.close()
        raise SystemExit(code)

    def end(self) -> None:
        """End the session for everybody. What was sent before is delivered; every loop stops, and programs exit by themselves."""
        deadline = self._loop.now() + DELIVERY
        echoes = [link.request(PING, DELIVERY) for link in self._instance.links]     # an answer comes after all that was sent
        self._turn_until(lambda: all(echo.done for echo in echoes) or self._instance.ended, DELIVERY)
        self._instance.root.ask_for_end()
        self._turn_until(lambda: self._instance.ended, max(0.1, deadline - self._loop.now()))
        self._instance.ended = True

    def close(self) -> None:
        """Say goodbye to the peers. Happens by itself at the end of the program."""
        links = self._instance.links.everything()
        if self._instance.is_closed:
            return
        self._instance.close()
        self._turn_until(lambda: all(link.channel.is_closed for link in links), FAREWELL)
        self._loop.close()


class _Input:
    """Standard input as Line events and one Eof, read only as fast as the program looks."""

    def __init__(self, loop, events):
        self._loop = loop
        self._events = events
        self._rest = b""
        self._is_watched = False
        self._has_ended = False

    def wanted(self):
        """The program looks for events: read on, unless enough wait already."""
        if self._has_ended or self._is_watched or len(self._events) >= LINES_AHEAD:
            return
        try:
            self._loop.watch(0, on_readable=self._readable)
            self._is_watched = True
        except (OSError, ValueError):
            self._end()               # closed

    def _readable(self):
        try:
            data = os.read(0, 4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""                # a terminal that hung up
        if not data:
            self._end()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            lines.append(self._rest)
            self._rest = b""
        self._events.extend(Line(line.rstrip(b"\r").decode("utf-8", "replace")) for line in lines)
        if len(self._events) >= LINES_AHEAD:
            self._pause()

    def _pause(self):
        if self._is_watched:
            self._is_watched = False
            self._loop.unwatch(0)

    def _end(self):
        self._pause()
        self._has_ended = True
        if self._rest:
            self._events.append(Line(self._rest.decode("utf-8", "replace")))
        self._events.append(Eof())
