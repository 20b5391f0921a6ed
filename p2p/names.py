"""Who was first known by a name: the pins.

A name is whatever its owner typed. So the ID that was met first under a name keeps it, and whoever comes later with that name,
or with one that looks like it (lookalike.py), is told as not the one that is known. It stays so after the first one has gone,
has taken another name, or was put out of the table: a name that is free again is what an impostor waits for.

A pin is made by a meeting over TLS, never by a hint. Those of nodes that are in the table are all kept, of the others so many, and
beyond that the newest goes: whoever invents identities pushes out his own. Else only a person takes pins away (`nodes forget`).

Who was first is said by the order of the meetings, not by the clock: a board without a battery starts in 1970, and whoever is met
before its clock is set must not be everybody's elder. So no pin is older than one that was there before it.
"""

import math

from . import limits
from .lookalike import skeleton

MAX_ABSENT = 4 * limits.MAX_MEMBERS     # pins of nodes that are not in the table
MAX_NAMES = 3                           # of one node; another name costs it the one that it bore longest ago
TICK = 0.001                            # s between two pins where the clock has gone back; a float of Unix seconds holds less


class Pin:
    """`first_seen`: Unix s of the first meeting with this ID; `since`: of that under this name."""

    __slots__ = ("id", "name", "look", "first_seen", "since")

    def __init__(self, node_id, name, first_seen, since):
        self.id = node_id
        self.name = name
        self.look = skeleton(name)
        self.first_seen = first_seen
        self.since = since


class Names:
    """All pins. `me` and `name`: this node's own, which nobody else ever has."""

    def __init__(self, me, name):
        self._me = me
        self._by_id = {}             # ID -> {look: Pin}, the one borne now at the end
        self._by_look = {}           # look -> {ID: Pin}
        self._elders = {}            # look -> the Pin that was first: each line on a screen asks for some
        self._present = {me}         # IDs in the table
        self._count = 0
        self._newest = 0.0           # `since` of the newest pin
        self._add(Pin(me, name, 0.0, -math.inf))

    def __iter__(self):
        """Those of others."""
        return iter([pin for pins in self._by_id.values() for pin in pins.values() if pin.id != self._me])

    def elder(self, look):
        """The Pin of who was first known by a name that looks so, or None."""
        return self._elders.get(look)

    def of(self, node_id):
        """The Pins of an ID, the one that it bears now at the end."""
        return list(self._by_id.get(node_id, {}).values())

    def first_seen(self, node_id) -> float:
        """Unix s of the first meeting with it; 0.0: there was none."""
        return min((pin.first_seen for pin in self.of(node_id)), default=0.0)

    def met(self, node_id, name, wall):
        """It was met, and says that this is its name."""
        pins = self._by_id.get(node_id, {})
        pin = pins.pop(skeleton(name), None)
        if pin is None:
            self.recall(node_id, name, self.first_seen(node_id) or wall, max(wall, self._newest + TICK))
        else:
            pin.name = name
            pins[pin.look] = pin

    def recall(self, node_id, name, first_seen, since):
        """It was met so in an earlier run."""
        pin = Pin(node_id, name, first_seen, since)
        if node_id == self._me or not name or pin.look in self._by_id.get(node_id, {}):
            return
        self._newest = max(self._newest, since)
        self._add(pin)
        if len(self._by_id[node_id]) > MAX_NAMES:
            self._drop(self.of(node_id)[0])
        self._trim()

    def forget(self, node_id):
        """Take its pins away."""
        for pin in self.of(node_id):
            self._drop(pin)

    def came(self, node_id):
        """It is in the table from now on."""
        self._present.add(node_id)

    def went(self, node_id):
        """It is in the table no more."""
        self._present.discard(node_id)
        self._trim()

    def _trim(self):
        if self._count <= MAX_ABSENT:
            return
        absent = [pin for pin in self if pin.id not in self._present]
        if len(absent) > MAX_ABSENT:
            self._drop(max(absent, key=lambda pin: pin.since))

    def _add(self, pin):
        self._by_id.setdefault(pin.id, {})[pin.look] = pin
        self._by_look.setdefault(pin.look, {})[pin.id] = pin
        self._count += 1
        elder = self._elders.get(pin.look)
        if elder is None or pin.since < elder.since:
            self._elders[pin.look] = pin

    def _drop(self, pin):
        for index, key, within in ((self._by_id, pin.id, pin.look), (self._by_look, pin.look, pin.id)):
            del index[key][within]
            if not index[key]:
                del index[key]
        self._count -= 1
        if self._elders[pin.look] is pin:
            alike = self._by_look.get(pin.look)
            if alike:
                self._elders[pin.look] = min(alike.values(), key=lambda one: one.since)
            else:
                del self._elders[pin.look]
