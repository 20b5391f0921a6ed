"""What the kernel has not taken yet of what one connection says: memoryviews, in order.

Small frames are joined and large bodies stay where they are: to copy a megabyte for every megabyte sent costs a third of
the time. A peer that reads slowly while little is said to it in each of many turns must not leave many small objects here.
"""

from .codec import HEADER_SIZE, LARGE, START


class Unsent:
    """`size` bytes wait."""

    __slots__ = ("size", "_views")

    def __init__(self):
        self.size = 0
        self._views = []

    def keep(self, view):
        """Put this memoryview behind the others."""
        views = self._views
        self.size += len(view)
        if len(views) > 1 and len(views[-1]) + len(view) < LARGE:
            view = memoryview(b"".join((views.pop(), view)))
        views.append(view)

    def gather(self, out):
        """Keep a turn's frames (header, body, header, body...)."""
        small = []
        for data in out:
            if len(data) >= LARGE:
                data = memoryview(data)
                small.append(data[:START - HEADER_SIZE])           # with its header, so that the reader knows at once what comes
                self.keep(memoryview(b"".join(small)))
                self.keep(data[START - HEADER_SIZE:])
                small = []
            else:
                small.append(data)
        rest = b"".join(small)
        if rest:       # OpenSSL has taken a write of nothing for the end of the connection: Python 3.8 and 3.9 let that through
            self.keep(memoryview(rest))

    def send(self, channel):
        """Offer them; how many bytes the channel took. Raises what it raises."""
        views, before = self._views, self.size
        while views:
            taken = channel.send_many(views)
            if not taken:
                break
            self.size -= taken
            while views and taken >= len(views[0]):
                taken -= len(views.pop(0))
            if taken:
                views[0] = views[0][taken:]
        return before - self.size

    def clear(self):
        """Nothing of it is wanted any more."""
        self.size = 0
        self._views.clear()
