"""One connection: frames in and out over a channel, requests and their answers, backpressure, deadlines.

Flow in: channel -> decoder -> dispatch on the header's first word -> handler(connection, request id, body).
Flow out: frames are queued and leave together at the end of the loop's turn.

Both sides are alike once both HELLOs have been heard; until then nothing else is accepted. The server speaks
first, because in TLS 1.3 a client cannot tell from its handshake whether the server let it in.

Backpressure: `write` always takes a frame (a handler cannot stop half-way), but tells by `has_room` that the
producer should wait for `room()`. A peer that does not read while MAX_BUFFERED pile up stops being read itself
if it asks for more; one that still does not read for FRAME_DEADLINE is dropped. Between programs that may be busy
for as long as they like, `be_patient` lifts the deadlines.

A write that fails says that the other end is gone, not that it said nothing before: what has arrived is read first.
"""

from . import limits, proto
from .codec import ERROR, RESPONSE, Decoder, check_word, frame
from .errors import LinkDown, P2PError, PeerError, Refusal, UserError
from .tasks import Event, Future

FLUSH_AT = 1 << 18       # bytes joined for one write; more is no faster and costs a copy
_RESPONSE_BITS = (RESPONSE | ERROR) << 24


class Traffic:
    """Counters of one connection, or of a sum of them."""

    __slots__ = ("in_bytes", "out_bytes", "in_messages", "out_messages", "kinds")

    def __init__(self):
        self.in_bytes = self.out_bytes = self.in_messages = self.out_messages = 0
        self.kinds = {}       # message number -> [in, out]

    def add(self, other):
        """Add another's counts to these."""
        self.in_bytes += other.in_bytes
        self.out_bytes += other.out_bytes
        self.in_messages += other.in_messages
        self.out_messages += other.out_messages
        for number, (came, went) in other.kinds.items():
            kind = self.kinds.setdefault(number, [0, 0])
            kind[0] += came
            kind[1] += went


class Connection:
    """See the module. `owner` offers dispatch (a Dispatch), greeting(connection) -> fields of the own HELLO,
    connection_ready(connection) (may raise PeerError to refuse) and connection_lost(connection, error)."""

    def __init__(self, loop, channel, owner):
        self.loop = loop
        self.channel = channel
        self.owner = owner
        self.hello = None                # the other's HELLO, once it came
        self.traffic = Traffic()
        self.silence = limits.SILENCE    # s after which a mute peer counts as lost; None: never
        self._patience = limits.FRAME_DEADLINE     # s for one frame, and for a peer that does not read; None: any
        self._deaf_at = limits.MAX_BUFFERED        # bytes queued from which on the peer is not read
        self._is_deaf = self._is_paused = False
        self._write_error = None         # the other end is gone; what it said before may still have to be read
        self.rtt_s = None
        self.opened_at = self.last_in = self.last_out = loop.now()
        self._decoder = Decoder()
        self._frame_began = None
        self._out = []
        self._out_bytes = 0
        self._sending = None             # a memoryview on what is being written
        self._full_since = None
        self._flush_due = False
        self._next_request = 0
        self._requests = {}              # id -> (Future, Message, Timer or None)
        self._serving = {}               # id -> Task that works on the answer
        self._room = Event(loop)
        self._state = "opening"
        channel.start(self)

    # -- who is there

    @property
    def peer_id(self):
        """The other's node ID, from its certificate."""
        return self.channel.peer_id

    @property
    def is_ready(self):
        """Have both HELLOs been heard?"""
        return self._state == "ready"

    @property
    def is_open(self):
        """Can frames still be queued?"""
        return self._state in ("opening", "ready")

    def be_patient(self):
        """The other end is a program that may be busy for an hour. It may also be a producer that waits for this one:
        were both deaf as soon as they have to wait, both would wait for ever."""
        self.silence = self._patience = None
        self._deaf_at = 2 * limits.MAX_BUFFERED

    def pause(self, is_paused):
        """Stop reading, or go on; frames that have been read already still come."""
        self._is_paused = is_paused
        self.channel.pause(is_paused or self._is_deaf)

    # -- opening

    def channel_open(self):
        """The channel is authenticated; the server speaks first."""
        if not self.channel.outgoing:
            self._greet()

    def _greet(self):
        self.write(frame(proto.HELLO.number, 0, proto.HELLO.pack(**self.owner.greeting(self))))

    def _hello(self, body):
        self.hello = proto.HELLO.unpack(body)
        if self.channel.outgoing:
            self._greet()
        self._state = "ready"
        self.owner.connection_ready(self)

    # -- in

    def channel_readable(self):
        """Read, decode, dispatch: the hot path."""
        try:
            chunks = self.channel.receive(limits.READ_BUDGET)
            self._take(chunks)
        except P2PError as error:
            self._lost(error)
        except Exception as error:  # our own fault; this stream's state is unknown now, the node's is not
            self.loop.report("handling a message failed", error)
            self._lost(LinkDown("an error on this side"))

    def _take(self, chunks):
        completed = self.traffic.in_messages
        handlers = self.owner.dispatch.by_word
        traffic = self.traffic
        kinds = traffic.kinds
        for chunk in chunks:
            traffic.in_bytes += len(chunk)
            for word, request, body in self._decoder.feed(chunk):
                traffic.in_messages += 1
                number = word >> 32 & 0xFFFF
                kind = kinds.get(number) or self._first_of(number)
                kind[0] += 1
                if self._state != "ready":
                    if self._state != "opening":
                        return           # a handler closed it
                    if word != proto.HELLO.word:
                        raise PeerError(f"sent {proto.describe(number)} before its HELLO", "order")
                    self._hello(body)
                    handlers = self.owner.dispatch.by_word     # the owner has become the one for this role
                    continue
                handler = handlers.get(word)
                if handler is not None:
                    handler(self, request, body)
                else:
                    self._unusual(word, request, body)
        if chunks:
            self.last_in = self.loop.now()
            if not self._decoder.is_inside_frame:
                self._frame_began = None
            elif self._frame_began is None or traffic.in_messages > completed:
                self._frame_began = self.last_in

    def _first_of(self, number):
        # A peer may invent 65,536 types; the unknown ones share one counter.
        return self.traffic.kinds.setdefault(number if number in proto.MESSAGES else 0, [0, 0])

    def _unusual(self, word, request, body):
        if word & _RESPONSE_BITS:
            self._answered(word, request, body)
            return
        check_word(word)
        if request:
            self.refuse(word >> 32 & 0xFFFF, request, proto.UNSUPPORTED, "this node does not know that request")

    def _answered(self, word, request, body):
        waiting = self._requests.pop(request, None)
        if waiting is None:
            return       # its deadline passed
        future, message, timer = waiting
        if timer:
            timer.cancel()
        if word >> 24 & ERROR:
            future.fail(Refusal(*proto.unpack_error(body)))
            return
        try:
            future.set(message.reply.unpack_all(body))
        except PeerError as error:
            future.fail(error)
            raise

    # -- out

    def write(self, data):
        """Queue one frame; it leaves at the end of this turn with all the others."""
        if not self.is_open or self._write_error:
            return
        self._out.append(data)
        self._out_bytes += len(data)
        self.traffic.out_messages += 1
        if not self._flush_due:
            self._flush_due = True
            self.loop.at_turn_end(self._flush)

    def send(self, message, **fields):
        """Queue a notice."""
        self._count_out(message.number)
        self.write(frame(message.number, 0, message.pack(**fields)))

    def request(self, message, timeout=limits.REQUEST_TIMEOUT, **fields):
        """A Future of the answer's fields. Fails with Refusal, LinkDown, or LinkDown(kind="timeout")."""
        future = Future(self.loop)
        if not self.is_open:
            future.fail(LinkDown("the connection is closed"))
            return future
        if len(self._requests) >= limits.MAX_REQUESTS:
            future.fail(LinkDown("too many requests wait for this peer's answer", "busy"))
            return future
        self._next_request = request = self._next_request % 0xFFFFFFFF + 1
        timer = self.loop.call_later(timeout, self._overdue, request) if timeout is not None else None
        self._requests[request] = (future, message, timer)
        self._count_out(message.number)
        self.write(frame(message.number, request, message.pack(**fields)))
        return future

    def _overdue(self, request):
        waiting = self._requests.pop(request, None)
        if waiting:
            waiting[0].fail(LinkDown(f"no answer to {waiting[1].name}", "timeout"))

    def reply(self, message, request, **fields):
        """Answer a request."""
        if request:
            self._count_out(message.number)
            self.write(frame(message.number, request, message.reply.pack(fields), RESPONSE))

    def refuse(self, number, request, code, text):
        """Answer a request with an ERROR."""
        if request:
            self._count_out(number)
            body = proto.Error.pack({"code": code, "text": text[:1000]})
            self.write(frame(number, request, body, RESPONSE | ERROR))

    def _count_out(self, number):
        self._first_of(number)[1] += 1

    @property
    def has_room(self):
        """Should the producer go on?"""
        return self._out_bytes < limits.MAX_BUFFERED

    async def room(self, below=limits.MAX_BUFFERED):
        """Wait until less than `below` bytes are queued. Raises LinkDown if the connection ends before."""
        while self._out_bytes >= below:
            await self._room.wait()
            if not self.is_open:
                raise LinkDown("the connection ended", "closed")

    def _flush(self):
        self._flush_due = False
        if self._state == "closed" or (self._state == "opening" and not self.channel.peer_id):
            return
        try:
            self._write_out()
        except LinkDown as error:
            self._cannot_write(error)
        except P2PError as error:
            self._lost(error)

    def _cannot_write(self, error):
        if self._state != "ready":
            self._lost(error)
            return
        self._write_error = error
        self._out, self._sending, self._out_bytes, self._full_since = [], None, 0, None
        self.channel.want_write(False)
        self._made_room()

    def _write_out(self):
        channel = self.channel
        traffic = self.traffic
        while True:
            if self._sending is None:
                if not self._out:
                    break
                self._sending = memoryview(self._join())
            taken = channel.send(self._sending)
            if not taken:
                channel.want_write(True)
                self._watch_reader()
                return
            traffic.out_bytes += taken
            self._out_bytes -= taken
            self.last_out = self.loop.now()
            self._full_since = None
            self._sending = self._sending[taken:] if taken < len(self._sending) else None
        channel.want_write(False)
        if self._state == "finishing":
            self._finish()
        else:
            self._made_room()

    def _join(self):
        if len(self._out) == 1 or len(self._out[0]) >= FLUSH_AT:
            return self._out.pop(0)
        size = count = 0
        for data in self._out:
            size += len(data)
            count += 1
            if size >= FLUSH_AT:
                break
        joined = b"".join(self._out[:count])
        del self._out[:count]
        return joined

    def _watch_reader(self):
        if self._out_bytes >= limits.MAX_BUFFERED:
            if self._full_since is None:
                self._full_since = self.loop.now()
            self._is_deaf = self._out_bytes >= self._deaf_at     # it asks and does not read the answers: stop hearing it
            self.channel.pause(self._is_paused or self._is_deaf)
        elif self._out_bytes < limits.LOW_WATER:
            self._made_room()

    def _made_room(self):
        self._is_deaf = False
        self.channel.pause(self._is_paused)
        self._room.notify()

    def channel_writable(self):
        """The kernel takes more."""
        self._flush()

    # -- time

    def sweep(self, now):
        """Look at the deadlines; called in ticks for all connections together."""
        if self._state != "ready":
            return
        patience = self._patience
        if self._write_error and not self._is_paused and now - self.last_in > limits.LINGER:
            self._lost(self._write_error)       # and reading does not show it
        elif patience is not None and self._full_since is not None and now - self._full_since > patience:
            self._lost(PeerError("does not read what it asked for", "stalled"))
        elif patience is not None and self._frame_began is not None and now - self._frame_began > patience:
            self._lost(PeerError("a frame that never ends", "slow"))
        elif self.silence is not None and now - self.last_in > self.silence and self._full_since is None:
            self._lost(LinkDown("it is silent", "silent"))
        elif now - self.last_out > limits.KEEPALIVE:
            self.send(proto.KEEPALIVE)

    # -- the end

    def finish(self, reason="", leaving=False):
        """Say goodbye, let out what is queued, close. `leaving`: not this connection alone ends, the whole process does."""
        if not self.is_open:
            return
        if self._state == "ready":
            self.send(proto.GOODBYE, reason=reason, leaving=leaving)
        self._state = "finishing"
        self.loop.call_later(limits.LINGER, self._finish)
        self._settle(LinkDown("this side closed the connection"))
        if not self._flush_due:
            self._flush()

    def _finish(self):
        if self._state == "finishing":
            self._state = "closed"
            self.channel.finish()

    def abort(self):
        """Close at once and tell nobody."""
        if self._state != "closed":
            self._state = "closed"
            self.channel.abort()
            self._settle(LinkDown("this side closed the connection"))

    def channel_lost(self, error):
        """The channel could not be opened."""
        self._lost(error)

    def fail(self, error):
        """Drop the peer for what it did."""
        self._lost(error)

    def _lost(self, error):
        if self._state == "closed":
            return
        was_finishing = self._state == "finishing"
        self._state = "closed"
        self.channel.abort()
        self._settle(error if isinstance(error, LinkDown) else LinkDown(str(error), "protocol"))
        if not was_finishing:
            self.owner.connection_lost(self, error)

    def _settle(self, error):
        requests, self._requests = self._requests, {}
        for future, _, timer in requests.values():
            if timer:
                timer.cancel()
            future.fail(error)
        serving, self._serving = self._serving, {}
        for task in serving.values():
            task.cancel()
        self._room.notify()

    # -- work on an answer that takes more than a turn

    def serve(self, message, request, coroutine):
        """Run a coroutine and answer with the fields it returns, or with the ERROR that it raises."""
        if request in self._serving or len(self._serving) >= limits.MAX_REQUESTS:
            coroutine.close()
            self.refuse(message.number, request, proto.BUSY, "too many requests at once")
            return
        task = self._serving[request] = self.loop.start(coroutine)
        task.add_callback(lambda done: self._served(message, request, done))

    def _served(self, message, request, task):
        self._serving.pop(request, None)
        error = task.error
        if not self.is_open:
            return
        if error is None:
            self.reply(message, request, **(task.result() or {}))
        elif isinstance(error, PeerError):
            self._lost(error)
        elif isinstance(error, Refusal):
            self.refuse(message.number, request, error.code, str(error))
        else:
            self.refuse(message.number, request, proto.FAILED, str(error) if isinstance(error, UserError) else "it failed there")


class Dispatch:
    """Which handler gets which message: the header's first word -> handler(connection, request id, body)."""

    def __init__(self):
        self.by_word = {}
        self.raw(proto.KEEPALIVE, lambda connection, request, body: None)
        self.raw(proto.PING, lambda connection, request, body: connection.reply(proto.PING, request))
        self.raw(proto.GOODBYE, _goodbye)

    def raw(self, message, handler):
        """handler(connection, request id, body bytes)."""
        self.by_word[message.word] = handler

    def notice(self, message, handler):
        """handler(connection, fields)."""
        self.raw(message, lambda connection, request, body: handler(connection, message.unpack(body)))

    def request(self, message, handler):
        """handler(connection, fields) is a coroutine function that returns the reply's fields, or None for none."""
        def serve(connection, request, body):
            connection.serve(message, request, handler(connection, message.unpack(body)))
        self.raw(message, serve)


def _goodbye(connection, _request, body):
    goodbye = proto.GOODBYE.unpack(body)
    connection.fail(LinkDown(goodbye.reason or "it said goodbye", "goodbye" if goodbye.leaving else "replaced"))
