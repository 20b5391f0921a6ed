"""How often something that others can cause may happen: a number in each stretch of time, for all together and for each of them.

What a stranger can trigger at no cost (a line on the screen, a new row in the table) gets a budget, so that a flood
costs what a trickle costs. Each key (an address, a node) has its own share, so that one who floods takes nothing from
the others; who invents keys meets the bound for all. All shares are fresh again at the same moment, which makes the
memory of it one number for each key of one stretch.
"""


class Budget:
    """At most `each` for one key and `overall` for all in `seconds`."""

    def __init__(self, each, overall, seconds):
        self._each = each
        self._overall = overall
        self._seconds = seconds
        self._since = None
        self._total = 0
        self._spent = {}
        self.refused = 0          # since the stretch began

    def take(self, now, key=None):
        """May it happen once more? Then that is spent."""
        if self._since is None or now - self._since >= self._seconds:
            self._since = now
            self._total = self.refused = 0
            self._spent.clear()
        spent = self._spent.get(key, 0)
        if spent >= self._each or self._total >= self._overall:
            self.refused += 1
            return False
        self._spent[key] = spent + 1
        self._total += 1
        return True
