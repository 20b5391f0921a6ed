"""Whom this node knows: which node a person means, what it is called on the screen, what is remembered between runs.

What a person types must never mean somebody else than he thinks. So a name means the one that was known by it first, and nobody
where that one is not here; a newcomer is reached by its ID. Who calls itself as another one's ID begins is ambiguous, too.

nodes.json holds the nodes to be dialled at the next start, and the pins (names.py) of all who were met.
"""

import json
import math

from . import limits, membership
from .errors import P2PError, UserError
from .text import clean
from .trust.ecc import node_id_text

REMEMBERED = "nodes.json"
MAX_REMEMBERED = 16 << 20      # bytes of that file: 7,000 rows of names and addresses at their longest have 8 MB
DAMAGED = ".damaged"           # ends the name of one that could not be read
MAX_NAME = 200                 # bytes of a name; cells do not bound them, and with some of its ID it must fit into a field of 255
LEAST_PREFIX = 4               # characters of an ID
SHOWN = 6                      # characters of an ID that tell namesakes apart


class Acquaintances:
    """`node` gives loop, path, disk, networks, notice and log; `table` is the membership."""

    def __init__(self, node, table):
        self._node = node
        self._loop = node.loop
        self._table = table
        self._save_due = False

    # -- whom a person means

    def find(self, word):
        """The one member that a person means by a name, an ID prefix, or name@idprefix. Raises UserError."""
        by_name, by_id = self._fitting(word)
        if len(by_id) == 1 and (not by_name or len(word) == len(node_id_text(by_id[0].id))):
            return by_id[0]
        here = [member for member in by_name if len(by_name) == 1 or member.state == membership.ALIVE]
        if not by_id and len(here) == 1 and self._table.pretends(here[0]) is None:      # who is gone is not meant where one is here
            return here[0]
        if not by_id and not by_name:
            raise UserError(f"{clean(word)}: no such node here. `nodes` lists who is; `connect HOST` reaches one that broadcast does not",
                            code="no-such-node")
        what = "is ambiguous" if len(by_id + by_name) > 1 else "is NOT the known one of that name"
        raise UserError(f"{clean(word)} {what}: say {self._candidates(by_name + by_id)}", code="ambiguous-node")

    def _fitting(self, word):
        """(members of this name, members whose ID fits)."""
        name, _, prefix = word.partition("@")
        by_name, by_id = [], []
        for member in self._table:
            text = node_id_text(member.id)
            if prefix and member.name == name and text.startswith(prefix) or len(word) >= LEAST_PREFIX and text.startswith(word):
                by_id.append(member)
            elif member.name == word:
                by_name.append(member)
        return by_name, by_id

    def _candidates(self, found):
        said = []
        for member in sorted(found, key=lambda member: (member.name, member.id))[:8]:
            known = "the known one, " if self._table.pretends(member) is None else ""
            said.append(f"{member.name}@{node_id_text(member.id)[:SHOWN]} ({known}{member.state})")
        absent = [pin for pin in map(self._table.pretends, found) if pin is not None and self._table.get(pin.id) is None]
        gone = f" (the {absent[0].name} known since {self._date(absent[0].since)} is not here)" if absent else ""
        return " or ".join(said) + gone

    # -- what it is called

    def label(self, node_id):
        """What to call a node on a screen: its name, and more where another one that looks like it was known before."""
        bearer = self._bearer(node_id)
        if bearer is None or not bearer.name:
            return node_id_text(node_id)[:10]
        if self._table.pretends(bearer) is None:         # of nearly all; p2pstate asks for each node at each change
            return bearer.name
        return f"{bearer.name}@{node_id_text(node_id)[:SHOWN]} (NOT the known one)"

    def _bearer(self, node_id):
        """What says its name: its row, or the Pin of one that is in the table no more."""
        return self._table.get(node_id) or next(reversed(self._table.names.of(node_id)), None)

    def pretends(self, node_id):
        """The Pin of whoever was known before by a name that looks like this one's, or None."""
        bearer = self._bearer(node_id)
        return None if bearer is None else self._table.pretends(bearer)

    def since(self, node_id):
        """For a prompt: how long it has been known, and whom it is not."""
        wall = self._table.names.first_seen(node_id)
        days = int((self._loop.wall() - wall) // 86400) if wall else 0
        since = "first seen today" if days < 1 else f"first seen {days} day{'s' if days > 1 else ''} ago"
        known = self.pretends(node_id)
        if known is None:
            return since
        whom = "this node" if known.id == self._table.me.id else f"the {known.name} known since {self._date(known.since)}"
        return f"{since}, NOT {whom}"

    def _date(self, wall):
        return self._node.log.date(wall)

    def forget(self, word):
        """Take the pins of the node away that is meant by an ID prefix, name@idprefix, or a name; its ID. Raises UserError.

        It need not be in the table any more.
        """
        name, _, prefix = word.partition("@")
        found = {}
        for known in [*self._table.names, *self._table]:
            text = node_id_text(known.id)
            is_named = known.name == name and text.startswith(prefix)
            if known.id != self._table.me.id and (is_named or len(word) >= LEAST_PREFIX and text.startswith(word)):
                found[known.id] = known.name
        if len(found) != 1:
            said = " or ".join(f"{name}@{node_id_text(node_id)[:SHOWN]}" for node_id, name in sorted(found.items())[:8])
            if found:
                raise UserError(f"{clean(word)} is ambiguous: say {said}", code="ambiguous-node")
            raise UserError(f"{clean(word)}: nobody of that name or ID was met here", code="no-such-node")
        node_id = next(iter(found))
        member = self._table.get(node_id)
        if member is not None and member.state == membership.ALIVE:
            raise UserError(f"{self.label(node_id)} is here now, and would be met again at once", code="alive")
        self._table.forget(node_id)
        self.save_later()
        return node_id

    # -- what is remembered

    def load(self):
        """Take what an earlier run has written; a row that is damaged costs that row alone."""
        path = self._node.path(REMEMBERED)
        if not self._node.disk.exists(path):
            return
        damaged = False
        try:
            rows = json.loads(self._node.disk.read_bytes(path, MAX_REMEMBERED).decode("utf-8"))
            for take in (self._take_member, self._take_pin):      # in this order: the pins of those in the table are all kept
                for row in rows:
                    try:
                        take(row)
                    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                        damaged = True
        except (P2PError, ValueError, TypeError, RecursionError):
            self._set_aside(path)
        if damaged:
            self._node.log.write("disk", f"{path}: some of its rows cannot be read, and are left out")

    def _set_aside(self, path):
        # It costs no key and no rule, so the node starts; but names are anybody's again, and that must be known
        text = f"{path} cannot be read: whom this node knew is forgotten, and any name is new to it; the file is now {path}{DAMAGED}"
        try:
            self._node.disk.rename(path, path + DAMAGED)
        except P2PError as error:
            text = f"{text.partition(';')[0]}; {error}"
        self._node.log.write("disk", text)
        self._node.notice(f"! {text}")

    def _take_member(self, row):
        if row.get("past"):
            return
        known = [bytes.fromhex(tag) for tag in row["networks"]]
        tags = [tag for tag in self._node.networks.tags if tag in known]
        addresses = [(str(host), int(port)) for host, port in row["addresses"]]
        if tags:                 # else this node has left them
            self._table.remembered(*_who(row), addresses, tags, _wall(row["first_seen"]), self._loop.now())

    def _take_pin(self, row):
        since = _wall(row.get("named") or 0.0)
        if since:
            self._table.names.recall(*_who(row), _wall(row["first_seen"]), since)

    def save_later(self):
        """What is known has changed."""
        if not self._save_due:
            self._save_due = True
            self._loop.call_later(limits.SAVE_EVERY, lambda: self._loop.start(self._save_in_worker()))

    async def _save_in_worker(self):
        """A table of a thousand takes a tenth of a second to write."""
        if self._save_due:
            self._save_due = False
            await self._loop.work(self._write, self._rows())

    def save(self):
        """Now, if anything has changed."""
        if self._save_due:
            self._save_due = False
            self._write(self._rows())

    def _rows(self):
        members = [member for member in sorted(self._table, key=lambda member: (member.name, member.id))
                   if member.is_acquainted and not member.is_self and member.addresses and member.networks]
        borne = {(member.id, member.look) for member in members}
        rows = []
        for member in members:
            since = [pin.since for pin in self._table.names.of(member.id) if pin.look == member.look]
            rows.append({"id": member.id.hex(), "name": member.name, "addresses": list(member.addresses),
                         "first_seen": member.first_seen_wall, "named": since[0] if since else 0.0,
                         "networks": [tag.hex() for tag in member.networks]})
        # Other names of a node stand before the one that it bears, as they are taken in this order
        return [{"id": pin.id.hex(), "name": pin.name, "first_seen": pin.first_seen, "named": pin.since, "past": True}
                for pin in self._table.names if (pin.id, pin.look) not in borne] + rows

    def _write(self, rows):
        try:
            self._node.disk.write_atomic(self._node.path(REMEMBERED), json.dumps(rows, indent=1, ensure_ascii=False).encode("utf-8"))
        except P2PError as error:
            self._loop.call_soon(self._node.log.write, "disk", str(error))


def _who(row):
    node_id = bytes.fromhex(row["id"])
    if len(node_id) != 32:
        raise ValueError("not a node's ID")
    return node_id, node_name(row["name"])


def _wall(said):
    wall = float(said)
    if not (math.isfinite(wall) and wall >= 0):
        raise ValueError("not a time")
    return wall


def node_name(foreign):
    """A node's name as it is kept and passed on."""
    return clean(foreign).encode("utf-8")[:MAX_NAME].decode("utf-8", "ignore")
