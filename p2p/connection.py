"""One connection: frames in and out over a channel, requests and their answers, backpressure, deadlines.

Flow in: channel -> decoder -> dispatch on the header's first word -> handler(connection, request id, body).
Flow out: `post` queues a frame; all frames of a turn leave together at its end. These few functions are the hot path
(`post`, `_flush`, `channel_readable`, and `Decoder.feed` in codec.py); docs/performance.md says what each of
its tricks is worth. Whatever is not usual leaves it at once.

Both sides are alike once both HELLOs have been heard; until then nothing else is accepted. The server speaks
first, because in TLS 1.3 a client cannot tell from its handshake whether the server let it in.

Backpressure: `post` always takes a frame, but tells by `has_room` that the producer should wait for `room()`. A peer
that does not read while MAX_BUFFERED pile up is not read itself; one that does not read for FRAME_DEADLINE is dropped.
Between programs that may be busy for as long as they like, `be_patient` lifts the deadlines.

A write that fails says that the other end is gone: what it said before is read first.
"""

from typing import Any

from . import limits, proto
from .codec import ERROR, LARGE, RESPONSE, WORDS, Decoder, check_word, first_word
from .errors import LinkDown, P2PError, PeerError
from .exchange import Exchange
from .fanout import NOWHERE, Corked
from .tasks import Event, Future
from .traffic import Traffic
from .unsent import Unsent

HANDFUL = 16             # frames handled between two looks at what they made us say
MANY = 16 * HANDFUL      # and where the last ones made us say nothing

_header = WORDS.pack
_RESPONSE = RESPONSE << 24
_ERROR = ERROR << 24


def _answered(connection, request, body):
    connection._exchange.answered(request, body)


def _refused(connection, request, body):
    connection._exchange.refused(request, body)


class Connection:
    """See the module. `owner` offers dispatch (a Dispatch), greeting(connection) -> fields of the own HELLO,
    connection_ready(connection) (may raise PeerError to refuse) and connection_lost(connection, error)."""

    # Beyond 30 attributes an object without slots looks each up in a dictionary of its own
    __slots__ = ("loop", "channel", "owner", "hello", "traffic", "silence", "rtt_s", "networks", "on_finished", "opened_at",
                 "last_in", "last_out", "_patience", "_deaf_at", "_is_deaf", "_is_paused", "_write_error", "_decoder", "_frames",
                 "_out", "_is_cold", "_summed", "_summed_bytes", "_unsent", "_full_since", "_exchange", "_room", "_state")

    def __init__(self, loop, channel, owner):
        self.loop = loop
        self.channel = channel
        self.owner = owner
        self.hello = None                # the other's HELLO, once it came
        self.networks = frozenset()      # tags of those in which the other has proved to be: at first that of the channel
        self.traffic = Traffic()
        self.silence = limits.SILENCE    # s after which a mute peer counts as lost; None: never
        self._patience = limits.FRAME_DEADLINE     # s for one frame, and for a peer that does not read; None: any
        self._deaf_at = limits.MAX_BUFFERED        # bytes queued from which on the peer is not read
        self._is_deaf = self._is_paused = False
        self._write_error = None         # the other end is gone; what it said before may still have to be read
        self.rtt_s = None
        self.on_finished = lambda: None  # this side ended it, and nothing more goes over it
        self.opened_at = self.last_in = self.last_out = loop.now()
        self._decoder = Decoder()
        self._frames = None              # those being handled
        self._out: Any = []              # this turn's frames: header, body, header, body...
        self._is_cold = True             # not the usual way out: opening, closing, a large body, a kernel that is full
        self._summed = self._summed_bytes = 0      # how much of _out has been summed up by `queued`
        self._unsent = Unsent()
        self._full_since = None
        self._exchange, self._room = Exchange(self), Event(loop)
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

    @property
    def _is_read(self):
        return not (self._is_paused or self._is_deaf)

    def pause(self, is_paused):
        """Stop reading, or go on; frames that have been read already still come."""
        self._is_paused = is_paused
        self._listen()

    def _listen(self):
        self.channel.pause(not self._is_read)
        if self._is_read:
            self.last_in = self.loop.turn_began      # its silence counts from here

    # -- opening

    def channel_open(self):
        """The channel is authenticated; the server speaks first."""
        if not self.channel.outgoing:
            self._greet()

    def _greet(self):
        self.send(proto.HELLO, **self.owner.greeting(self))

    # -- in

    def channel_readable(self):
        """Read, decode, dispatch."""
        decoder, traffic = self._decoder, self.traffic
        try:
            if decoder.place is None:
                data = self.channel.receive(decoder.wants)
                if not data:
                    return
                self.last_in = self.loop.turn_began
                traffic.in_bytes += len(data)
                frames = decoder.feed(data)
            else:
                frames = self._placed()
            if self._state != "ready":
                frames = self._open(frames)
            kinds, seen = traffic.kinds, None
            handlers = self.owner.dispatch.by_word
            for handful in (frames,) if len(frames) <= HANDFUL else self._handfuls(frames):
                self._frames = handful               # who closes this connection empties the list, which ends the loop
                for word, request, body in handful:
                    if word != seen:                 # messages of one kind come in runs: looked up once for each run
                        try:
                            handler = handlers[word]
                        except KeyError:
                            handler = self._unusual(word)
                        kind = kinds.get(word >> 32 & 0xFFFF) or self._kind(word >> 32 & 0xFFFF)
                        seen = word
                    kind[0] += 1
                    handler(self, request, body)
            self._frames = None
            if self._out:
                self._flush()
        except P2PError as error:
            self.fail(error)
        except Exception as error:  # our own fault; this stream's state is unknown now, the node's is not
            self.loop.report("handling a message failed", error)
            self.fail(LinkDown("an error on this side"))

    def _placed(self):
        """Frames that were put aside, or the rest of a large body, read to its place without a copy."""
        frames = self._decoder.taken_back()
        if frames is not None:
            self.loop.call_later(0, self._read_on)
            return frames
        size = self.channel.receive_into(self._decoder.place)
        if not size:
            return []
        self.last_in = self.loop.turn_began
        self.traffic.in_bytes += size
        return self._decoder.placed(size)

    def _read_on(self):
        # What the channel had to tell while frames lay aside (bytes, the end) it may not tell again by itself
        if self.is_open and self._is_read:
            self.channel_readable()

    def _handfuls(self, frames):
        # Answers to the first of many questions leave while the others are worked on: 1.9x where 64 are open. Where the
        # first have no answer, more are taken at a time. Where the answers are not read, the other questions wait.
        at, step = 0, HANDFUL
        while self._state == "ready":
            yield frames[at:at + step]
            at += step
            if at >= len(frames):
                return
            step = HANDFUL if self._out else MANY
            self._flush()
            if self._is_deaf:
                self._decoder.put_aside(frames[at:])
                return

    def _open(self, frames):
        """Take the other's HELLO; the frames behind it."""
        if self._state != "opening" or not frames:
            return []
        word, _, body = frames[0]
        check_word(word)
        if word != proto.HELLO.word:
            raise PeerError(f"sent {proto.describe(word >> 32 & 0xFFFF)} before its HELLO", "order")
        self._kind(proto.HELLO.number)[0] += 1
        self.hello = proto.HELLO.unpack(body)
        if self.channel.outgoing:
            self._greet()
        self._state = "ready"
        self.networks = frozenset((self.channel.tag,))
        self.owner.connection_ready(self)
        return frames[1:] if self._state == "ready" else []

    def _kind(self, number):
        # A peer may invent 65,536 types; the unknown ones share one counter.
        kinds = self.traffic.kinds
        return kinds.get(number) or kinds.setdefault(number if number in proto.MESSAGES else 0, [0, 0])

    def _unusual(self, word):
        """Who handles what is in no table: an answer, or what this node does not know. Raises PeerError for what is no header."""
        check_word(word)
        if word & (_ERROR | _RESPONSE):
            return _refused if word & _ERROR else _answered
        number = word >> 32 & 0xFFFF
        return lambda connection, request, body: connection.refuse(
            number, request, proto.UNSUPPORTED, "this node does not know that request")

    # -- out

    def post(self, word, request, body):
        """Queue one frame (header's first word, request id, bytes). It leaves at the end of this turn, with all the others."""
        out = self._out
        if not out and not self._frames:         # while frames are handled, `channel_readable` flushes
            self.loop.at_turn_end(self._flush)
        size = len(body)
        if size >= LARGE:
            self._is_cold = True         # it will not be copied
        out.append(_header(word, request, size))
        out.append(body)

    def cork(self, batch):
        """From now on this batch collects what is sent to many (fanout.py). What stands in for the queue meanwhile."""
        if type(self._out) is Corked:
            self._out.batch.is_over = True
            self.uncork(self._out.batch)
        stand_in = Corked(self, self._out, batch)
        if self._out is not NOWHERE:
            self._out = stand_in
        return stand_in

    def uncork(self, batch):
        """The batch ends, for this connection at least: queue its frames."""
        self._out = out = self._out.before
        out.append(batch.joined())
        out.append(b"")              # `_flush` counts two for a message
        self.traffic.out_messages -= 1
        for number, count in batch.kinds.items():
            self._kind(number)[1] += count
            self.traffic.out_messages += count

    def send(self, message, **fields):
        """Queue a notice."""
        self._kind(message.number)[1] += 1
        self.post(message.word, 0, message.pack(**fields))

    def request(self, message, timeout=limits.REQUEST_TIMEOUT, **fields):
        """A Future of the answer's fields. Fails with Refusal, LinkDown, or LinkDown(kind="timeout")."""
        if not self.is_open:
            future = Future(self.loop)
            future.fail(LinkDown("the connection is closed"))
            return future
        request, future = self._exchange.ask(message, timeout)
        if request:
            self._kind(message.number)[1] += 1
            self.post(message.word, request, message.body.pack(fields))
        return future

    def serve(self, message, request, coroutine):
        """Run a coroutine and answer with the fields it returns, or with the ERROR that it raises."""
        self._exchange.serve(message, request, coroutine)

    def reply(self, message, request, **fields):
        """Answer a request."""
        if request:
            self._kind(message.number)[1] += 1
            self.post(message.word | _RESPONSE, request, message.reply.pack(fields))

    def refuse(self, number, request, code, text):
        """Answer a request with an ERROR."""
        if request:
            self._kind(number)[1] += 1
            self.post(first_word(number, RESPONSE | ERROR), request, proto.Error.pack({"code": code, "text": text[:1000]}))

    @property
    def queued(self):
        """Bytes that wait for the kernel. Summed up when somebody asks: to count each as it comes costs 1.08x."""
        out = self._out
        shared = 0
        if type(out) is Corked:
            out, shared = out.before, out.batch.size
        if self._summed < len(out):
            self._summed_bytes += sum(map(len, out[self._summed:] if self._summed else out))
            self._summed = len(out)
        return self._unsent.size + self._summed_bytes + shared

    @property
    def has_room(self):
        """Should the producer go on?"""
        return self.queued < limits.MAX_BUFFERED

    async def room(self, below=limits.MAX_BUFFERED):
        """Wait until less than `below` bytes are queued. Raises LinkDown if the connection ends before."""
        while self.queued >= below:
            await self._room.wait()
            if not self.is_open:
                raise LinkDown("the connection ended", "closed")

    def _flush(self):
        """The turn's frames leave in one system call: 4x to 12x against a call for each."""
        out = self._out
        if self._is_cold:
            self._flush_rest()
            return
        if not out:
            return
        data = b"".join(out)
        self.traffic.out_messages += len(out) >> 1
        out.clear()
        if self._summed:
            self._summed = self._summed_bytes = 0
        try:
            taken = self.channel.send(data)
        except P2PError as error:
            self._cannot_write(error)
            return
        self.traffic.out_bytes += taken
        self.last_out = self.loop.turn_began
        if taken < len(data):
            self._unsent.keep(memoryview(data)[taken:])
            self._is_cold = True
            self._wait_for_kernel()
        elif self._room.waiting:
            self._room.notify()

    def _gather(self):
        """Move the turn's frames to what is unsent."""
        self._is_cold = True
        self._unsent.gather(self._out)
        self.traffic.out_messages += len(self._out) >> 1
        self._out.clear()
        self._summed = self._summed_bytes = 0

    def _flush_rest(self):
        """The way that is not hot: while opening and finishing, for large bodies, and for a peer that reads slowly."""
        if self._state == "closed" or self._state == "opening" and not self.channel.peer_id:
            return
        if self._out is not NOWHERE:
            self._gather()
        try:
            taken = self._unsent.send(self.channel)
        except P2PError as error:
            self._cannot_write(error)
            return
        if taken:
            self.traffic.out_bytes += taken
            self.last_out = self.loop.turn_began
            self._full_since = None
        if self._unsent.size:
            self._wait_for_kernel()
            return
        self.channel.want_write(False)
        if self._state == "finishing":
            self._finish()
        else:
            self._is_cold = self._out is NOWHERE
            self._made_room()

    def _wait_for_kernel(self):
        self.channel.want_write(True)
        if self.queued >= limits.MAX_BUFFERED:
            if self._full_since is None:
                self._full_since = self.loop.now()
            if not self._is_deaf and self.queued >= self._deaf_at:
                self._is_deaf = True         # it asks and does not read the answers: stop hearing it
                self._listen()
        elif self.queued < limits.LOW_WATER:
            self._made_room()

    def _cannot_write(self, error):
        if self._state != "ready" or not isinstance(error, LinkDown):
            self.fail(error)
            return
        self._write_error = error
        self._drop_queue()
        self.channel.want_write(False)
        self._made_room()

    def _drop_frames(self):
        """Nothing more is handled."""
        if self._frames:
            self._frames.clear()

    def _drop_queue(self):
        """Nothing more goes out."""
        self._out = NOWHERE
        self._is_cold = True
        self._summed = self._summed_bytes = 0
        self._unsent.clear()
        self._full_since = None

    def _made_room(self):
        if self._is_deaf:
            self._is_deaf = False
            self._listen()
        self._room.notify()

    def channel_writable(self):
        """The kernel takes more."""
        self._flush_rest()

    # -- time

    def sweep(self, now):
        """Look at the deadlines; called in ticks for all connections together."""
        if self._state != "ready":
            return
        patience = self._patience
        if self._write_error and not self._is_paused and now - self.last_in > limits.LINGER:
            self.fail(self._write_error)       # and reading does not show it
        elif patience is not None and self._full_since is not None and now - self._full_since > patience:
            self.fail(PeerError("does not read what it asked for", "stalled"))
        elif patience is not None and self._decoder.age(now, self.traffic.in_messages, self._is_read) > patience:
            self.fail(PeerError("a frame that never ends", "slow"))
        elif self.silence is not None and now - self.last_in > self.silence and self._is_read:
            self.fail(LinkDown("it is silent", "silent"))
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
        self._drop_frames()
        self._gather()
        self._out = NOWHERE
        self.loop.call_later(limits.LINGER, self._linger, self._unsent.size, self.loop.now() + limits.FRAME_DEADLINE)
        self._settle(LinkDown("this side closed the connection"))
        self.loop.at_turn_end(self._flush_rest)

    def _linger(self, before, until):
        # For as long as the other end goes on reading, it is to have all of it
        if self._state == "finishing" and self._unsent.size < before and self.loop.now() < until:
            self.loop.call_later(limits.LINGER, self._linger, self._unsent.size, until)
        else:
            self._finish()

    def _finish(self):
        if self._state == "finishing":
            self._state = "closed"
            self._drop_queue()
            self.channel.finish()
            self.on_finished()

    def abort(self):
        """Close at once and tell nobody."""
        if self._state != "closed":
            self._close(LinkDown("this side closed the connection"))
            self.on_finished()

    def _close(self, error):
        self._state = "closed"
        self._drop_frames()
        self._drop_queue()
        self.channel.abort()
        self._settle(error)

    def fail(self, error):
        """Drop the peer, for what it did or because it is gone."""
        if self._state == "closed":
            return
        was_finishing = self._state == "finishing"
        self._close(error if isinstance(error, LinkDown) else LinkDown(str(error), "protocol"))
        if was_finishing:
            self.on_finished()
        else:
            self.owner.connection_lost(self, error)

    channel_lost = fail      # it could not be opened

    def _settle(self, error):
        self._exchange.settle(error)
        self._room.notify()
