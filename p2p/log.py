"""The node's log: what happened, one cleaned line each, in a bounded file below the home.

A hostile peer may cause an event as often as it likes. Each kind of event gets a budget of lines; what is beyond
it is counted and told in one line when the budget is fresh again, so a flood costs a few lines and not a disk.
"""

from .text import clean

MAX_FILE = 1 << 20        # bytes of one log file; one older one is kept
BURST = 20                # lines of one kind
REFILL = 10.0             # s until a kind's budget is fresh
MAX_LINE_CELLS = 400


class Log:
    """`write` never raises: a full disk must not stop the node over its diary."""

    def __init__(self, loop, path):
        self.path = path
        self._loop = loop
        self._file = None
        self._size = 0
        self._spent = {}              # kind -> [since, lines, suppressed]
        self.followers = []           # callables(line)

    def write(self, kind, text):
        """Add one line: time, kind (a short word of our own), text (cleaned here)."""
        now = self._loop.now()
        budget = self._spent.setdefault(kind, [now, 0, 0])
        if now - budget[0] > REFILL:
            suppressed = budget[2]
            budget[:] = [now, 0, 0]
            if suppressed:
                self._add(kind, f"{suppressed} more of these were not written down")
        budget[1] += 1
        if budget[1] > BURST:
            budget[2] += 1
            return
        self._add(kind, clean(text, MAX_LINE_CELLS))

    def _add(self, kind, text):
        import time
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._loop.wall()))
        line = f"{stamp} {kind}: {text}"
        self._append(line)
        for follower in list(self.followers):
            follower(line)

    def _append(self, line):
        data = (line + "\n").encode("utf-8", "replace")
        try:
            self._size = self._loop.disk.append(self.path, data)
            if self._size > MAX_FILE:
                self._loop.disk.rename(self.path, self.path + ".1")
        except Exception:  # the diary is not worth the node: a full or vanished disk is told by whoever needs it
            self._size = 0

    def last(self, count):
        """The last lines, oldest first."""
        lines = []
        for path in (self.path + ".1", self.path):
            if self._loop.disk.exists(path):
                lines += self._loop.disk.read_bytes(path, 4 * MAX_FILE).decode("utf-8", "replace").splitlines()
        return lines[-count:]
