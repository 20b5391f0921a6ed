"""One frame for many connections: packed once, joined once with what follows soon, and handed to each as the same bytes.

To fifty connections a system call each for every small message is what a broadcast costs. So a batch stays open while the
loop is busy, at most loop.CORK: whoever sends one message a turn gets ten times as many out for the same work, and one
message alone still leaves before the loop sleeps.

Order is kept: a frame that is posted to one connection meanwhile goes behind what the batch held until then, and the next
frame for all begins a new batch. For that, and for connections that are closed, something else stands in for their queue.
"""

from .codec import WORDS

FULL = 1 << 16       # bytes; a batch that is larger gains nothing by waiting


class Nowhere(list):
    """Takes the frames of a connection that is closed, so that `post` need not ask. True, so that nobody flushes it."""

    def append(self, item):
        """Forget it."""

    def __bool__(self):
        return True


NOWHERE = Nowhere()


class Corked(list):
    """Stands in for a connection's queue while a batch is open: empty, so that whoever posts has a flush scheduled."""

    __slots__ = ("connection", "before", "batch")

    def __init__(self, connection, before, batch):
        super().__init__()
        self.connection = connection
        self.before = before          # the queue itself, with what was in it
        self.batch = batch

    def append(self, item):
        """Something for this connection alone: it goes behind the batch's frames."""
        if self.connection._out is self:
            self.batch.is_over = True
            self.connection.uncork(self.batch)
        self.connection._out.append(item)


class Batch:
    """The frames so far, and for whom."""

    def __init__(self, connections):
        self.connections = connections
        self.frames = []
        self.size = 0
        self.is_over = False          # has one of them gone its own way?
        self.kinds = {}               # message number -> how many
        self.corked = [connection.cork(self) for connection in connections]

    def joined(self):
        """All frames, as one."""
        if len(self.frames) > 1:
            self.frames = [b"".join(self.frames)]
        return self.frames[0]


class Fanout:
    """Sends to many. One for each sender of broadcasts."""

    def __init__(self, loop):
        self._loop = loop
        self._batch = None

    def post(self, connections, word, body):
        """Queue one frame for each of these connections, which must be ready; a notice, not a request."""
        batch = self._batch
        if batch is None or batch.is_over or batch.connections != connections:
            self.flush()
            batch = self._batch = Batch(list(connections))
            self._loop.before_sleep(self.flush)
        size = len(body)
        batch.frames.append(WORDS.pack(word, 0, size))
        batch.frames.append(body)
        batch.size += size + WORDS.size
        number = word >> 32 & 0xFFFF
        batch.kinds[number] = batch.kinds.get(number, 0) + 1
        if batch.size >= FULL:
            self.flush()

    def flush(self):
        """Let out what there is."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        for corked in batch.corked:
            connection = corked.connection
            if connection._out is corked:        # else it got its frames already, or is closed
                connection.uncork(batch)
                connection._flush()
        # The batch and those who stand in for queues know each other: left to the collector, megabytes would wait for it
        batch.corked.clear()
        batch.frames.clear()
