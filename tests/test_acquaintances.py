"""Whom a word means, what a node is called, and what of it survives a restart. No sockets: the table is told who was met."""
import json
from types import SimpleNamespace

import pytest

from p2p import limits
from p2p.acquaintances import MAX_REMEMBERED, REMEMBERED, Acquaintances, node_name
from p2p.disk import Disk
from p2p.errors import UserError
from p2p.log import Log
from p2p.membership import Membership
from p2p.names import MAX_ABSENT, MAX_NAMES
from p2p.trust.ecc import node_id_text

ME, BOB, EVE = b"\1" * 32, b"\2" * 32, b"\3" * 32
TAG = b"lan-----"


class Run:
    """One run of a node on a home."""

    def __init__(self, home):
        self.home = home
        self.lines = []
        self.table = Membership(ME, "me", 1, 0.0)
        loop = SimpleNamespace(now=lambda: 5.0, wall=lambda: 1_700_000_000.0, call_later=lambda *_: None,
                               call_soon=lambda call, *args: call(*args))
        node = SimpleNamespace(loop=loop, path=lambda name: str(home / name), disk=Disk(), networks=SimpleNamespace(tags=[TAG]),
                               notice=lambda text: None, log=SimpleNamespace(write=lambda *line: self.lines.append(line), date=Log.date))
        self.known = Acquaintances(node, self.table)
        self.known.load()

    def met(self, node_id, name, wall, now=1.0):
        self.table.linked(node_id, name, "1", 1, "10.0.0.2", 47474, TAG, now)
        self.table.met(self.table.get(node_id), wall)
        self.known.save_later()

    def gone(self, node_id):
        self.table.unlinked(node_id, "goodbye", 2.0)

    def again(self):
        self.known.save()
        return Run(self.home)

    def refusal(self, word, call=None):
        with pytest.raises(UserError) as caught:
            (call or self.known.find)(word)
        return caught.value


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def label(node_id, name="bob"):
    return f"{name}@{node_id_text(node_id)[:6]} (NOT the known one)"


def test_pins_survive_restarts_also_of_those_who_bear_another_name_are_nowhere_to_dial_or_were_met_in_a_network_that_was_left(run):
    run.met(BOB, "bob", 1e9)
    run.met(BOB, "robert", 1.1e9)
    run.met(b"\4" * 32, "ann", 1e9)
    run.table.get(b"\4" * 32).networks = [b"another-"]
    run.met(b"\5" * 32, "carl", 1e9)
    run.table.get(b"\5" * 32).addresses.clear()
    run = run.again().again()
    for node_id, name in ((EVE, "bob"), (EVE, "ann"), (EVE, "carl"), (EVE, "robert")):
        run.met(node_id, name, 1.6e9)
        assert run.known.label(EVE) == label(EVE, name)
    run.met(BOB, "bob", 1.7e9)
    assert run.known.label(BOB) == "bob" and run.table.get(BOB).first_seen_wall == 1e9 and run.known.pretends(BOB) is None


def test_a_name_never_means_a_newcomer_and_an_id_never_who_is_called_so(run):
    run.met(BOB, "bob", 1e9)
    assert run.known.find("bob").id == BOB
    run.met(EVE, "bob", 1.6e9)
    run.gone(BOB)
    assert "(the known one, left)" in str(run.refusal("bob"))
    assert run.known.find(f"bob@{node_id_text(EVE)[:6]}").id == EVE
    run.gone(EVE)
    run.met(BOB, "bob", 1.7e9)
    assert run.known.find("bob").id == BOB
    for length in (4, 10, 52):
        run.met(EVE, node_id_text(BOB)[:length], 1.6e9)
        run.gone(BOB)
        if length == 52:
            assert run.known.find(node_id_text(BOB)).id == BOB
        else:
            assert "ambiguous" in str(run.refusal(node_id_text(BOB)[:length]))


def test_the_known_one_that_is_in_the_table_no_more_is_named_to_who_types_its_name(run):
    run.table.names.recall(BOB, "bob", 1e9, 1e9)
    run.met(EVE, "bob", 1.6e9)
    assert run.known.label(EVE) == label(EVE) and run.known.label(BOB) == "bob"
    said = str(run.refusal("bob"))
    assert "NOT the known one" in said and f"bob@{node_id_text(EVE)[:6]} (alive)" in said and "known since 2001-09-" in said
    assert run.known.since(EVE).endswith("NOT the bob known since 2001-09-09")
    run.met(EVE, "me", 1.6e9)
    assert run.known.since(EVE).endswith("NOT this node")


def test_a_person_can_give_a_name_free_unless_its_bearer_is_here(run):
    run.met(BOB, "bob", 1e9)
    run.met(EVE, "bob", 1.6e9)
    assert run.refusal("bob", run.known.forget).code == "ambiguous-node"
    assert run.refusal("bib", run.known.forget).code == run.refusal("me", run.known.forget).code == "no-such-node"
    word = f"bob@{node_id_text(BOB)[:6]}"
    assert run.refusal(word, run.known.forget).code == "alive"
    run.gone(BOB)
    assert run.known.forget(word) == BOB
    assert run.known.find("bob").id == EVE and run.known.label(EVE) == "bob"
    assert run.again().known.label(EVE) == "bob"


def test_a_damaged_row_costs_that_row_and_a_damaged_file_only_what_was_in_it(run, tmp_path):
    run.met(BOB, "bob", 1e9)
    run.known.save()
    path = tmp_path / REMEMBERED
    assert path.stat().st_mode & 0o777 == 0o600
    good = json.loads(path.read_text())
    bad = [{"id": "00"}, {"first_seen": float("nan")}, {"addresses": [["h"]]}, {"named": -1}, {"networks": [7]}]
    path.write_text(json.dumps([7, {}] + [dict(good[0], id="0" * 64, **damage) if "id" not in damage else dict(good[0], **damage)
                                          for damage in bad] + good))
    run = Run(tmp_path)
    assert [pin.name for pin in run.table.names if pin.id == BOB] == ["bob"] and run.table.get(BOB)
    assert len(run.lines) == 1 and "some of its rows cannot be read" in run.lines[0][1]
    for damage in ("", "{", "7", "[" * 100_000, "x" * (MAX_REMEMBERED + 1)):
        path.write_text(damage)
        run = Run(tmp_path)
        assert "any name is new" in run.lines[0][1] and not list(run.table.names)
        assert (tmp_path / f"{REMEMBERED}.damaged").read_text() == damage and not path.exists()


def test_all_that_can_be_known_at_its_longest_is_read_at_the_next_start(run):
    name = node_name("\\\"" * 8 + "\U0001d518" * 60)
    for number in range(limits.MAX_MEMBERS - 1):
        node_id = number.to_bytes(32, "big")
        run.met(node_id, name, 1e9 + number)
        for host in range(limits.MAX_ADDRESSES):
            run.table.get(node_id).add_address(f"fe80:1111:2222:3333:4444:5555:6666:{host:04x}%interface15", 47474, is_proven=True)
        for other in range(1, MAX_NAMES):
            run.table.names.recall(node_id, f"{other}{name[:-1]}", 1e9 + number, 1e9)
    for number in range(MAX_ABSENT):
        run.table.names.recall((1 << 40 | number).to_bytes(32, "big"), name, 1e9 + number, 2e9)
    count = len(list(run.table.names))
    assert count == (limits.MAX_MEMBERS - 1) * MAX_NAMES + MAX_ABSENT
    again = run.again()
    assert not again.lines and len(list(again.table.names)) == count
    assert (run.home / REMEMBERED).stat().st_size < MAX_REMEMBERED * 2 // 3
