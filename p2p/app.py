"""What an application imports: `p2p.attach()` gives the App; everything that happens is an object of a class.

    app = p2p.attach("chat")
    for event in app:                       # the loop form
        if isinstance(event, p2p.Line): ...

Three forms, one engine: iterate over the app; or register callbacks with `@app.on(Class)` and `app.run()`; or wait
for one thing with `app.wait(Class)`. There is no thread: the network moves while the program is in one of the app's
calls. Handlers are never entered from inside another: what comes while a call waits for something is put off.

Each peer gives one Join before its first message and at most one Leave after its last; after a Leave it may join again.
"""

import sys
from types import MappingProxyType
from typing import Mapping

from . import child, limits
from .codec import as_dict
from .errors import LinkDown, PeerError, Refusal, UserError
from .fanout import Fanout
from .inbox import Input
from .instance import UNREAD, Instance, Peer, fields_of, message_of
from .message import Gone, Message, Timeout
from .proto import DATA, PING, UNSUPPORTED
from .text import block, clean

__all__ = ["App", "Peer", "attach"]

WAIT = 10.0               # s for the roster, unless said otherwise: one absent person never blocks the others
DELIVERY = 3.0            # s for peers to read what was sent before the end; a root gives 5 to the whole end
FAREWELL = 1.0            # s for goodbyes at exit
STUCK = 3.0               # s without a byte leaving, after which two programs that both send and do not look are told so
LOOK_AROUND = 0.01        # s after which the network has its turn though events wait: else a long queue would stop it

_app = None


def attach(name=None, wait=WAIT) -> "App":
    """Take part in the session that this process was started for.

    Returns when everybody of the roster is connected or known not to come, or after `wait` seconds; who comes later
    is a Join. `name` is for the reader of the program. Called again it returns the same App. Raises SystemExit, with a
    line that says what to do, in a process that no root started.
    """
    global _app
    if child.stand is not None:
        return child.stand               # this process works at tasks
    if _app is None:
        _check_seconds(wait, "p2p.attach(wait=S)")
        if child.bootstrap is None:
            raise SystemExit(f"{name or 'this program'} is an application: share its folder and start it with "
                             "`python p2pframe.py run NAME [NODE...]`")
        try:
            _app = App(child.bootstrap)
        except UserError as error:
            raise SystemExit(f"{name or 'this program'}: {error}")
        child.on_exit(_app.close)
        _app._begin(wait)
    return _app


def _check_peer(peer):
    if not isinstance(peer, Peer):
        raise TypeError(f"a peer is one of app.peers, app.host or the .sender of an event, not {repr(peer)[:80]}")


def _check_class(kind, where):
    if not isinstance(kind, type):
        raise TypeError(f"{where} wants a class, such as p2p.Line or one of your messages: {where}(Class), not {repr(kind)[:80]}")


def _check_seconds(timeout, where):
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise ValueError(f"{where}: the timeout is a number of seconds, such as 2.5, not {timeout!r}")


class _Due:
    """Stands in the queue of events for a function that is to be called every so many seconds."""

    __slots__ = ("function", "seconds", "at")

    def __init__(self, function, seconds, at):
        self.function = function
        self.seconds = seconds
        self.at = at


class App:
    """One instance of an application, and its view of the others."""

    def __init__(self, told):
        self._instance = Instance(told)
        self._loop = self._instance.loop
        self._events = self._instance.events
        self._input = Input(self._loop, self._events)
        self._fanout = Fanout(self._loop)
        self._handlers = {}
        self._turned_at = self._loop.now()
        self._state_name = told["state"]
        self.args = list(told["args"])         # what stood behind `--`
        self.dir = told["folder"]              # the installed version, exactly as shared
        self.data = told["data"]               # a folder of the application's own that survives versions

    def _begin(self, wait):
        instance = self._instance
        self._turn_until(lambda: instance.root.is_told and instance.everybody_answered() or instance.ended, wait)
        instance.shared.start()

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

    @property
    def has_ended(self) -> bool:
        """Is the session over? Events may still wait."""
        return self._instance.ended

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
        """Send to one peer. Waits while it has too much unread. Raises Gone. What is sent to `me` comes back."""
        _check_peer(peer)
        fields = fields_of(message)
        if peer is self.me:
            self._instance.arrived(message_of(**fields), peer, len(fields["fields"]))
        else:
            self._send(peer, fields)

    def broadcast(self, message: Message, ordered=False) -> None:
        """Send to all peers that are here. `ordered`: through the host, so that all get it in the same order, this one included.
        Raises Gone, for an ordered one, when the host is."""
        if ordered:
            fields = fields_of(message)
            self._wait_for_order()
            self._instance.shared.propose(**fields)
            self._loop.flush()
            return
        body = DATA.pack(**fields_of(message))
        links = self._all_links()
        while not all(link.is_ready for link in links):     # one broke while another was waited for
            links = self._all_links()
        if links:
            self._fanout.post(links, DATA.word, body)
            self._loop.flush()     # as in _send

    def share(self, key: str, value) -> None:
        """Set `app.state[key]` for everybody; None takes the key away. Returns when it is so here, behind all earlier changes.

        `value` is what a field of type Any takes. Raises Gone when the host is, UserError where all that is shared would be too large.
        """
        shared = self._instance.shared
        self._wait_for_order()
        serial = shared.propose_change(key, value)
        self._loop.flush()
        self._turn_until(lambda: not shared.is_pending(serial) or self._is_order_lost() or self._instance.is_full)
        if shared.was_too_large(serial):
            raise UserError(f"share({key!r:.40}, ...): all that is shared together may have {limits.MAX_SHARED} bytes and "
                            f"{limits.MAX_SHARED_KEYS} keys", code="full")
        if shared.is_pending(serial):
            raise self._too_much() if self._instance.is_full and not self._is_order_lost() else self._no_order()

    @property
    def state(self) -> Mapping:
        """What has been shared, the same at everybody after the same changes; to be read only."""
        return MappingProxyType(self._instance.shared.state.values)

    def _is_order_lost(self):
        host = self._instance.host
        return self._instance.ended or host is not self.me and (host.has_left or not host.was_joined)

    def _no_order(self):
        if self._instance.ended:
            return Gone("the session has ended")
        return Gone(f"{self._instance.host.name} is not here; the host keeps the order in which all see ordered messages and changes")

    def _wait_for_order(self):
        """Not faster than the slowest reads."""
        shared = self._instance.shared
        while True:
            if self._is_order_lost():
                raise self._no_order()
            if shared.has_room:
                return
            self._turn_until(lambda: shared.has_room or self._is_order_lost() or self._instance.is_full, STUCK)
            if self._instance.is_full and not shared.has_room:
                raise self._too_much()

    def _all_links(self):
        links = []
        for peer in self.peers:
            try:
                links.append(self._link_with_room(peer))
            except Gone:
                pass          # its Leave is on the way
        return links

    def _send(self, peer, fields):
        self._link_with_room(peer).send(DATA, **fields)
        self._loop.flush()         # now: the program may compute for an hour before it looks for events again

    def _link_with_room(self, peer):
        connection = self._link(peer)
        while not connection.has_room:
            self._wait_for_room(peer, connection)
            connection = self._link(peer)
        return connection

    def _wait_for_room(self, peer, connection):
        """Not faster than it is read. But where here too much waits unread and nothing moves, the other may wait for this program:
        both would wait for ever."""
        while not connection.has_room and connection.is_open:
            before = connection.traffic.out_bytes
            self._turn_until(lambda: connection.has_room or not connection.is_open, STUCK)
            is_stuck = not connection.has_room and connection.is_open and connection.traffic.out_bytes == before
            if is_stuck and self._instance.is_full:
                raise UserError(f"{peer.name} does not read, and here {UNREAD >> 20} MiB of messages wait: look at some of them "
                                "before you send more", code="full")

    def _link(self, peer):
        """The connection with a peer. A wire may break without anybody leaving: then it is waited for. Raises Gone."""
        instance = self._instance
        if not instance.link(peer) and peer.was_joined:
            self._turn_until(lambda: instance.link(peer) or peer.has_left or instance.ended)
        link = instance.link(peer)
        if link is None:
            raise Gone(f"{peer.name} is gone" if peer.has_left else f"{peer.name} is not here")
        return link

    def request(self, peer: Peer, message: Message, timeout: float = 10.0):
        """Send, and wait for the message that the peer's handler returns. Raises Gone, Timeout; UserError if it was refused."""
        _check_peer(peer)
        fields, what = fields_of(message), type(message).__name__
        _check_seconds(timeout, f"request({what})")
        if peer is self.me:
            raise ValueError(f"{what}: a request to oneself would wait for ever")
        deadline = self._loop.now() + timeout
        future = self._link(peer).request(DATA, timeout, **fields)
        self._loop.flush()
        self._turn_until(lambda: future.done or self._instance.is_full)
        if not future.done:
            raise self._too_much()
        try:
            answer = message_of(**as_dict(future.result()))
        except (Refusal, PeerError) as error:
            raise UserError(f"{peer.name} did not answer {what}: {clean(str(error), 200)}")
        except LinkDown as error:
            raise self._no_answer(peer, f"{peer.name} did not answer {what} in {timeout:g} s", error, deadline)
        if answer is None:
            raise UserError(f"{peer.name} answered {what} with a message class that this program does not have")
        answer.sender = peer
        return answer

    def _no_answer(self, peer, text, error, deadline):
        """Why a request has failed. When a connection ends, it shows in a moment whether the peer does, too."""
        instance = self._instance
        if error.kind != "timeout":
            self._turn_until(lambda: peer.has_left or instance.ended or instance.link(peer), max(0.0, deadline - self._loop.now()))
            if peer.has_left or instance.ended:
                return Gone(f"{peer.name} is gone")
        return Timeout(text)

    def _too_much(self):
        return UserError(f"{UNREAD >> 20} MiB of other messages wait, so no more are read: look at some of them first", code="full")

    def reply(self, message: Message, answer: Message) -> None:
        """Answer a message that came by `request`; for the loop form, where no handler's return value does it."""
        fields_of(message)
        fields = fields_of(answer)
        asked = message.__dict__.pop("_asked", None)
        if asked is not None:
            connection, number = asked
            connection.reply(DATA, number, **fields)
            self._loop.flush()

    # -- many hands

    def task(self, function=None, workers=None):
        """Decorator: the function is one that `map` may call on any node, in processes of their own, one for each core or `workers`.

        In such a process `main.py` runs only to where it does more with the App than define tasks: define them right behind `attach`.
        """
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            raise ValueError(f"@app.task(workers=N): a number of processes, not {workers!r}")

        def register(function):
            self._instance.farming.task(function, workers)
            return function
        return register(function) if function is not None else register

    def map(self, function, items, in_order=True):
        """Iterate over (item, result) of a task, done wherever a node of the session has a core free, this one included.

        An item that is a tuple or a list holds the function's arguments. Items are drawn as somebody is free; results come in their
        order, or as they are ready. What a node had that left is done again elsewhere: at least once each. Raises TaskFailed where a
        task raised, Gone when the session ends. Other events wait meanwhile.
        """
        return self._instance.farming.map(function, items, in_order, self._turn_while_mapping)

    def _turn_while_mapping(self, condition):
        instance = self._instance
        self._turn_until(lambda: condition() or instance.ended or instance.is_full)
        if not condition():
            raise Gone("the session has ended") if instance.ended else self._too_much()

    # -- receiving

    def on(self, kind):
        """Decorator: call the function with each event of this class, in `run`. What it returns answers a request."""
        _check_class(kind, "@app.on")

        def register(function):
            self._handlers[kind] = function
            return function
        return register

    def every(self, seconds: float):
        """Decorator: call the function, which takes nothing, every so many seconds, whichever way the program looks for events.
        Not inside a handler or a call that waits for something else: then it is late, and what was missed is left out. A function
        that returns False is called no more."""
        _check_seconds(seconds, "@app.every")
        if not 0 < seconds < float("inf"):
            raise ValueError(f"@app.every: the pause is a number of seconds above 0, not {seconds!r}")

        def register(function):
            self._loop.call_later(seconds, self._events.put, _Due(function, seconds, self._loop.now() + seconds))
            return function
        return register

    def _call(self, due):
        if due.function() is False:
            return
        now = self._loop.now()
        due.at = now - (now - due.at) % due.seconds + due.seconds
        self._loop.call_at(due.at, self._events.put, due)

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
        connection, number = getattr(event, "_asked", (None, 0))
        if connection is not None:
            connection.refuse(DATA.number, number, UNSUPPORTED, f"it has no handler for {type(event).__name__}")

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
        if timeout is not None:
            _check_seconds(timeout, "app.poll")
        deadline = None if timeout is None else self._loop.now() + timeout
        while True:
            self._input.wanted()
            if not self._events:
                left = None if deadline is None else max(0.0, deadline - self._loop.now())
                self._turn_until(lambda: self._events or self._instance.ended, left)
            elif self._loop.now() - self._turned_at > LOOK_AROUND:
                self._turn(0)
            event = self._instance.next_event() if self._events else None
            if not isinstance(event, _Due):
                return event
            self._call(event)
            if deadline is not None and not self._events and self._loop.now() >= deadline:
                return None          # one that is due again at once must not keep whoever only looks

    def fileno(self) -> int:
        """A descriptor for `select` in a foreign event loop: when it is readable, and 4 times a second, `poll()` until None."""
        return self._loop.fileno()

    def wait(self, kind, sender=None, timeout=None):
        """The next event of this class (from this peer); others stay in the queue. Raises Timeout, and Gone when it cannot come."""
        _check_class(kind, "app.wait")
        if sender is not None:
            _check_peer(sender)
        if timeout is not None:
            _check_seconds(timeout, "app.wait")
        self._input.wanted()
        instance = self._instance

        def is_over():
            return instance.ended or instance.is_full or sender is not None and sender.has_left
        found = self._events.find(kind, sender)
        if found is None:
            self._turn_until(lambda: self._events.find(kind, sender) is not None or is_over(), timeout)
            found = self._events.find(kind, sender)
        if found is not None:
            return instance.next_event(found)
        if instance.ended or sender is not None and sender.has_left:
            raise Gone(f"{sender.name} is gone" if sender is not None and sender.has_left else "the session has ended")
        raise self._too_much() if instance.is_full else Timeout(f"no {kind.__name__} in {timeout:g} s")

    def _turn_until(self, condition, timeout=None):
        """Let the network move, at least once, until something is so."""
        deadline = None if timeout is None else self._loop.now() + timeout
        while not condition():
            left = None if deadline is None else max(0.0, deadline - self._loop.now())
            self._turn(left)
            if left == 0.0:
                return

    def _turn(self, seconds):
        self._loop.turn(seconds)
        self._turned_at = self._loop.now()

    # -- the user

    def print(self, *values, raw=False) -> None:
        """Show the values and end the line. Control characters are made harmless, since texts come from others; `raw` leaves them."""
        text = " ".join(str(value) for value in values)
        sys.stdout.write((text if raw else block(text)) + "\n")
        sys.stdout.flush()

    # -- the end

    def quit(self, code=0) -> None:
        """Leave, alone: the others get a Leave behind what was sent to them, this process ends with `code`."""
        self.close()
        raise SystemExit(code)

    def end(self) -> None:
        """End the session for everybody. What was sent before is delivered; every loop stops, and programs exit by themselves.

        Any instance may ask; the host's root sees to it, or, where the host is gone, each root that hears of it.
        """
        self._deliver()
        self._instance.root.ask_for_end()
        self._turn_until(lambda: self._instance.ended, FAREWELL)
        self._instance.ended = True

    def _deliver(self):
        """Until the peers have read what was sent: they answer a PING behind it. Whoever is too busy for that is not waited for."""
        echoes = [link.request(PING, DELIVERY) for link in self._instance.links]
        shared = self._instance.shared
        self._turn_until(lambda: self._instance.ended or all(echo.done for echo in echoes) and (shared.is_settled or self._is_order_lost()),
                         DELIVERY)

    def close(self) -> None:
        """See to it that what was sent is read, say goodbye to the peers. Happens by itself at the end of the program."""
        instance = self._instance
        if instance.is_closed:
            return
        instance.look_away()
        self._deliver()
        connections = instance.connections()
        instance.close()
        self._turn_until(lambda: all(connection.channel.is_closed for connection in connections), FAREWELL)
        self._loop.close()

