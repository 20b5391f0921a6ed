"""What is ready: the part of `selectors` that a loop asks for a hundred thousand times a second.

On Linux the loop asks epoll itself. `selectors.EpollSelector` looks each event up, sums its bits anew and makes two tuples
for it: 1.2x of a round trip. Everywhere else the standard module's best selector answers, in epoll's bits.
"""

import select
import selectors

READ, WRITE = 1, 4       # epoll's bits. Others (an error, a hang-up) mean that both sides are ready, to hear of it


class EpollPoller:
    """Descriptors and what is wanted of them. `poll(seconds or None)` gives [(descriptor, bits)]."""

    def __init__(self):
        self._epoll = select.epoll()
        self.poll = self._epoll.poll
        self.register, self.modify = self._epoll.register, self._epoll.modify
        self.fileno, self.close = self._epoll.fileno, self._epoll.close

    def unregister(self, fd):
        """Watch no longer."""
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass        # closed before; the kernel has forgotten it


class SelectorPoller:
    """The same on any platform."""

    def __init__(self):
        self._selector = selectors.DefaultSelector()
        self.unregister, self.close = self._selector.unregister, self._selector.close

    def register(self, fd, wanted):
        """Watch."""
        self._selector.register(fd, _events(wanted))

    def modify(self, fd, wanted):
        """Watch for something else."""
        self._selector.modify(fd, _events(wanted))

    def poll(self, timeout):
        """[(descriptor, bits)] of what is ready within `timeout` seconds; None: wait."""
        return [(key.fd, (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0))
                for key, events in self._selector.select(timeout)]

    def fileno(self):
        """Of the selector, where it has one: AttributeError elsewhere."""
        return self._selector.fileno()


def _events(wanted):
    return (selectors.EVENT_READ if wanted & READ else 0) | (selectors.EVENT_WRITE if wanted & WRITE else 0)


def poller():
    """The best one for this platform."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
