"""The node's log: what happened, one cleaned line each, in a bounded file below the home.

A hostile peer may cause an event as often as it likes. Each kind of event, and of those that were refused each reason,
gets a budget of lines; what is beyond it is counted and told in one line when the budget is fresh again. So a flood
costs a few lines and not a disk, and hides nothing that happens for another reason meanwhile.
"""

from .text import clean

MAX_FILE = 1 << 20        # bytes of one log file; one older one is kept
BURST = 20                # lines of one kind
REFILL = 10.0             # s until a kind's budget is fresh; the count comes then, also if nothing more happens
MAX_LINE_CELLS = 400


class Log:
    """`write` never raises: a full disk must not stop the node over its diary."""

    def __init__(self, loop, path):
        self.path = path
        self._loop = loop
        self._file = None
        self._size = 0
        self._spent = {}              # (kind, reason) -> [since, lines, suppressed]
        self.followers = []           # callables(line)

    def write(self, kind, text, reason=""):
        """Add one line: time, kind (a short word of our own), text (cleaned here). `reason`, of our own too, has its own budget."""
        now = self._loop.now()
        key = (kind, reason)
        budget = self._spent.setdefault(key, [now, 0, 0])
        if now - budget[0] >= REFILL:
            self._refill(key)
        budget[1] += 1
        if budget[1] <= BURST:
            self._add(kind, clean(text, MAX_LINE_CELLS))
            return
        if not budget[2]:
            self._loop.call_at(budget[0] + REFILL, self._refill, key)
        budget[2] += 1

    def _refill(self, key):
        kind, reason = key
        suppressed = self._spent[key][2]
        self._spent[key][:] = [self._loop.now(), 0, 0]
        if suppressed:
            self._add(kind, f"{suppressed} more of these were not written down{f' ({reason})' if reason else ''}")

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

    @staticmethod
    def date(wall):
        """A day, of this place's calendar, as in the log. `wall`: Unix s."""
        import time
        return time.strftime("%Y-%m-%d", time.localtime(wall))

    def last(self, count):
        """The last lines, oldest first."""
        lines = []
        for path in (self.path + ".1", self.path):
            if self._loop.disk.exists(path):
                lines += self._loop.disk.read_bytes(path, 4 * MAX_FILE).decode("utf-8", "replace").splitlines()
        return lines[-count:]
