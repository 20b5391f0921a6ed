"""Ordered messages and the shared state between real processes."""

import os
import signal
from types import SimpleNamespace

import pytest

from p2p import proto
from p2p.dispatch import Dispatch
from p2p.instance import Peer
from p2p.ordering import CHANGE, State
from p2p.shared import Shared

START = """
import p2p, sys, time
class Say(p2p.Message):
    text: str
def say(*words):
    print(*words, flush=True)
"""


@pytest.mark.parametrize("room", [3], indirect=True)
def test_all_see_ordered_messages_and_changes_in_one_order(room):
    session = room.start(START + """
import hashlib
app = p2p.attach()
for number in range(200):
    app.broadcast(Say(f"{app.me.name} {number}"), ordered=True)
    if number % 10 == 0:
        app.share("last", [app.me.name, number])
got, own = [], []
while len(got) < 3 * 220:
    event = app.poll(None)
    if isinstance(event, (Say, p2p.Change)):
        what = event.text if isinstance(event, Say) else repr((event.key, event.value))
        got.append((event.sender.name, what))
        if event.sender is app.me:
            own.append(what)
assert [one for one in own if one[0] != "("] == [f"{app.me.name} {number}" for number in range(200)]
say("order", hashlib.sha256(repr(got).encode()).hexdigest()[:16], dict(app.state))
for event in app:
    if isinstance(event, p2p.Line):
        app.end()
""")
    for node in range(3):
        room.says(node, "order ")
    lines = {next(line for line in room.output(node).splitlines() if line.startswith("order")) for node in range(3)}
    assert len(lines) == 1
    room.job(1).write(b"end\n")
    assert room.wait(session) == 0


def test_a_change_is_made_when_share_returns_and_is_there_when_attach_does(room):
    room.start(START + """
if len(sys.argv) > 1:
    time.sleep(0)
app = p2p.attach()
if app.is_host:
    app.share("board", {"cells": [1, 2], "turn": None})
    assert app.state["board"]["cells"] == [1, 2]
    try:
        app.state["board"] = 1
    except TypeError:
        say("read only")
    app.share("gone", 1)
    app.share("gone", None)
    try:
        for number in range(100):
            app.share(f"big {number}", bytes(60_000))
    except p2p.UserError as error:
        say("told", error, len(app.state))
else:
    change = app.wait(p2p.Change)
    assert change.sender is app.host and change.key == "board" and change.value == {"cells": [1, 2], "turn": None}
    app.share("mine", 5)
    assert app.state["mine"] == 5 and "gone" not in dict(app.state) or app.state["gone"] == 1
    say("shared", change)
for event in app:
    if isinstance(event, p2p.Change) and event.key == "mine":
        say("heard", event.sender.name, event.value)
""")
    room.says(0, "read only")
    room.says(0, "told share('big 8', ...): all that is shared together may have 524288 bytes and 10000 keys")
    room.says(1, "shared Change('board'")
    room.says(0, "heard bob 5")


def test_without_the_host_there_is_no_order_and_whoever_wants_one_is_told(room):
    room.start(START + """
app = p2p.attach()
app.share("k", app.me.name)
say("shared")
if app.is_host:
    app.wait(p2p.Line)
try:
    while True:
        app.share("k", 1)
        app.broadcast(Say("x"), ordered=True)
        app.poll(0.01)
except p2p.Gone as error:
    say("told", error, app.state["k"])
for event in app:
    pass
""")
    room.says(0, "shared")
    room.says(1, "shared")
    os.kill(room.job(0).pid, signal.SIGKILL)
    room.says(1, "told ann is not here; the host keeps the order")


def test_a_program_that_does_not_look_slows_ordered_messages_and_memory_stays_bounded(room):
    room.start(START + """
import resource
class Piece(p2p.Message):
    data: bytes
p2p.attach()
app = p2p.attach()
if app.is_host:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    for number in range(40):
        app.broadcast(Piece(bytes(500_000)), ordered=True)
        while app.poll(0):
            pass
    say("took", time.monotonic() - began > 1.0, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < 40)
    count = 0
    app.end()
else:
    time.sleep(2)
    for number in range(40):
        app.wait(Piece)
    say("all there")
    for event in app:
        pass
""")
    room.says(1, "all there")
    room.says(0, "took True True")


def test_what_was_said_in_order_before_a_program_ends_is_delivered(room):
    session = room.start(START + """
app = p2p.attach()
if app.is_host:
    got = []
    for event in app:
        if isinstance(event, Say):
            got.append(event.text)
        elif isinstance(event, p2p.Leave):
            say("got", len(got), got == [str(number) for number in range(50)])
            app.quit()
else:
    for number in range(50):
        app.broadcast(Say(str(number)), ordered=True)
""")
    room.says(0, "got 50 True")
    assert room.wait(session) == 0


@pytest.mark.parametrize("has_left", [False, True])
def test_who_is_known_by_an_ordered_word_alone_has_joined_before_it_and_is_nobodys_ghost(has_left):
    me, host, other = (Peer(letter * 32, letter.decode()) for letter in (b"a", b"h", b"o"))
    other.has_left = has_left                     # as the roster says: it has ended; what it said is on its way by the host
    happened, link = [], SimpleNamespace(peer_id=host.id, is_ready=True, send=lambda *said, **fields: None)
    instance = SimpleNamespace(
        me=me, host=host, joined=[], dispatch=Dispatch(), links={host.id: link}, loop=SimpleNamespace(at_turn_end=lambda call: None),
        member={peer.id: peer for peer in (me, host, other)}.get, link=lambda peer: link, complain=lambda *said: happened.append(said),
        is_here=lambda peer: happened.append(("join", peer.name)), left=lambda peer: happened.append(("leave", peer.name)),
        arrived=lambda event, peer, size: happened.append((event.key, peer.name)))
    shared = Shared(instance)
    shared.begin()
    shared._on_ordered(link, proto.ORDERED.unpack(proto.ORDERED.pack(
        number=1, stable=0, sender=other.id, serial=1, kind=CHANGE, schema=0, fields=State.encode("key", 1))))
    assert happened == [("join", "o"), ("key", "o")] + [("leave", "o")] * has_left
