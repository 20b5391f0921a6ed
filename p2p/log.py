"""The node's log: what happened, one cleaned line each, in bounded files below the home.

A hostile peer may cause an event as often as it likes. Each kind of event, and of those that were refused each reason,
gets a budget of lines; what is beyond it is counted and told in one line when the budget is fresh again. So a flood
costs a few lines and not a disk, and hides nothing that happens for another reason meanwhile.

In time even a few lines push out what stood before. So what was run here, and by whose word, is kept in a file of its own as
well (`keep`), where nothing is written that a stranger can cause. There no line is left out.
"""

from . import record
from .text import clean

MAX_FILE = 1 << 20        # bytes of one file; one older one is kept
BURST = 20                # lines of one kind
REFILL = 10.0             # s until a kind's budget is fresh; the count comes then, also if nothing more happens
MAX_LINE_CELLS = 400
KEPT = "runs"             # ends the name of the other file


class Log:
    """Writing never raises: a full disk must not stop the node over its diary. But it is said, once until it works again."""

    def __init__(self, loop, path):
        self.path = path
        self.kept_path = f"{path}.{KEPT}"
        self._loop = loop
        self._torn = set()            # files whose last line may be cut off
        self._spent = {}              # (kind, reason) -> [since, lines, suppressed]
        self.followers = []           # callables(line, is_kept)
        self.on_failure = lambda error: None

    def write(self, kind, text, reason=""):
        """Add one line: time, kind (a short word of our own), text (cleaned here). `reason`, of our own too, has its own budget."""
        if self._has_budget(kind, reason):
            self._add(kind, clean(text, MAX_LINE_CELLS))

    def note(self, kind, fields):
        """Add a line of fields (record.py) about what strangers may cause."""
        if self._has_budget(kind, ""):
            self._add(kind, record.compose(fields))

    def keep(self, kind, fields):
        """Add a line of fields about what was done by this user's word. None is ever left out."""
        self._add(kind, record.compose(fields), is_kept=True)

    def _has_budget(self, kind, reason):
        now = self._loop.now()
        key = (kind, reason)
        budget = self._spent.setdefault(key, [now, 0, 0])
        if now - budget[0] >= REFILL:
            self._refill(key)
        budget[1] += 1
        if budget[1] <= BURST:
            return True
        if not budget[2]:
            self._loop.call_at(budget[0] + REFILL, self._refill, key)
        budget[2] += 1
        return False

    def _refill(self, key):
        kind, reason = key
        suppressed = self._spent[key][2]
        self._spent[key][:] = [self._loop.now(), 0, 0]
        if suppressed:
            self._add(kind, f"{suppressed} more of these were not written down{f' ({reason})' if reason else ''}")

    def _add(self, kind, text, is_kept=False):
        import time
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._loop.wall()))
        line = f"{stamp} {kind}: {text}"
        for path in [self.path] + [self.kept_path] * is_kept:
            self._append(path, line)
        for follower in list(self.followers):
            follower(line, is_kept)

    def _append(self, path, line):
        data = (("\n" if path in self._torn else "") + line + "\n").encode("utf-8", "replace")
        try:
            if self._loop.disk.append(path, data) > MAX_FILE:
                self._loop.disk.rename(path, path + ".1")
            self._torn.discard(path)
        except Exception as error:  # the diary is not worth the node
            is_first = path not in self._torn
            self._torn.add(path)
            if is_first:
                self.on_failure(error)

    @staticmethod
    def date(wall):
        """A day, of this place's calendar, as in the log. `wall`: Unix s."""
        import time
        return time.strftime("%Y-%m-%d", time.localtime(wall))

    def last(self, count, kept_only=False):
        """The last lines, oldest first."""
        lines = []
        newest = self.kept_path if kept_only else self.path
        for path in (newest + ".1", newest):
            status = self._loop.disk.status(path)
            if status is not None:
                start = max(0, status.size - 4 * MAX_FILE)         # one of another size was not made here
                lines += self._loop.disk.read_at(path, start, 4 * MAX_FILE).decode("utf-8", "replace").split("\n")
        return [line for line in lines if line][-count:]
