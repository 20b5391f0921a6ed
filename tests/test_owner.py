"""The owner's door of a root: who gets in, and what its connections can and cannot do. A real root, real TLS."""

import socket

import pytest

from p2p import proto, rootlink
from p2p.client import Client
from p2p.dispatch import Dispatch
from p2p.errors import LinkDown, P2PError, Refusal, UserError
from p2p.loop import Loop
from p2p.owner import Caller
from p2p.rootlink import NoRoot, RootLink, reach
from p2p.tasks import within
from p2p.trust.identity import Identity
from p2p.trust.networks import Networks
from tests.nodes import Nodes
from tests.test_node import Bed
from tests.waiting import wait_until


class Kept(Caller):
    """Keeps what a command prints."""

    def __init__(self, loop):
        super().__init__(loop, as_json=True)
        self.printed = b""
        self.wants_keys = []

    def write(self, stream, data):
        self.printed += data

    def raw(self, wanted):
        self.wants_keys.append(wanted)


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    made = Nodes(tmp_path_factory.mktemp("ann"))
    made.up("ann")
    yield made
    made.close()


@pytest.fixture
def bed(tmp_path):
    bed = Bed(tmp_path)
    yield bed
    bed.close()


def on_loop(main):
    """Run `main(loop)` to its end; its result."""
    loop = Loop()
    task = loop.start(main(loop))
    task.add_callback(lambda done: loop.stop())
    loop.run()
    loop.close()
    return task.result()


def refused(ann, reason):
    """How often the root has refused somebody for this."""
    return ann.json("ann", "stats")["refused"].get(reason, 0)


def test_commands_run_side_by_side_and_an_interrupt_right_behind_one_reaches_it(ann, monkeypatch):
    monkeypatch.setattr(rootlink, "ANSWER", 600.0)              # so it is the root's own answer that comes

    async def main(loop):
        link = await reach(loop, str(ann.home("ann")))
        waits, asks = Kept(loop), Kept(loop)
        waiting = loop.start(link.run(["nodes", "--wait", "9", "--timeout", "600"], waits))
        assert await within(loop, loop.start(link.run(["id"], asks)), 5.0) == 0
        assert not waiting.done
        waits.interrupt()
        assert await within(loop, waiting, 5.0) == 130
        hasty = Kept(loop)
        running = loop.start(link.run(["nodes", "--wait", "9", "--timeout", "600"], hasty))
        hasty.interrupt()
        assert await within(loop, running, 5.0) == 130
        await link.close()
        return waits.printed, asks.printed
    printed, asked = on_loop(main)
    assert printed == b"" and b'"port"' in asked


def test_a_lost_guest_takes_its_commands_along(ann):
    async def main(loop):
        link = await reach(loop, str(ann.home("ann")))
        follows = Kept(loop)
        task = loop.start(link.run(["log", "--follow"], follows))
        while not follows.printed:
            await loop.sleep(0.01)
        link._connection.abort()
        with pytest.raises(UserError) as caught:
            await within(loop, task, 5.0)
        assert caught.value.code == "root-ended"
    on_loop(main)
    wait_until(lambda: ann.json("ann", "stats")["tcp"]["connections"] == 1, 5.0, "the connection to be forgotten")


def test_a_guest_that_is_gone_before_its_words_are_looked_at_starts_nothing_and_leaves_nothing(bed):
    """All three arrive in one turn of the root's loop."""
    node = bed.start("ann")
    ran = []

    async def run(words, caller):
        ran.append(words)
        return 0
    node.owners.open(run)

    class Guest:
        dispatch = Dispatch()

        def greeting(self, connection):
            return {"role": proto.OWNER, "name": "", "version": "", "nonce": 1, "port": 0, "abilities": 0, "networks": [],
                    "addresses": [], "view": 0}

        def connection_ready(self, connection):
            pass

        def connection_lost(self, connection, error):
            pass
    dial = Client(bed.loop, node.networks, Guest()).dial([("127.0.0.1", node.port)], node.networks.tags[0])
    bed.until(lambda: dial.done and node.links._others)
    before = list(node.watchers)
    there = node.links._others[0]
    node.owner_dispatch.by_word[proto.WATCH.word](there, 1, b"")
    node.owner_dispatch.by_word[proto.COMMAND.word](there, 2, proto.COMMAND.pack(
        command=1, words=["say", "x"], folder="", as_json=False, yes=False, columns=0, rows=0, color=False, is_terminal=False))
    there.fail(LinkDown("it is gone", "eof"))
    bed.until(lambda: dial.result()._state == "closed")
    bed.idle(0.05)
    assert node.watchers == before and not node.owners._watchers and not node.owners._callers and not ran


def test_two_commands_with_one_number_cost_the_connection_and_nothing_else(ann):
    async def main(loop):
        link = await reach(loop, str(ann.home("ann")))
        fields = dict(command=1, words=["nodes", "--wait", "9"], folder="", as_json=False, yes=False, columns=0, rows=0, color=False,
                      is_terminal=False)
        link._connection.request(proto.COMMAND, None, **fields)
        link._connection.request(proto.COMMAND, None, **fields)
        await within(loop, link.lost, 5.0)
    before = refused(ann, "command")
    on_loop(main)
    assert refused(ann, "command") == before + 1


def test_the_owners_connection_speaks_its_own_messages_only(ann):
    async def main(loop):
        link = await reach(loop, str(ann.home("ann")))
        with pytest.raises(Refusal) as caught:
            await link._connection.request(proto.NODES)
        await link.close()
        return caught.value.code
    assert on_loop(main) == proto.UNSUPPORTED


def test_a_watcher_hears_notices_until_it_goes(ann):
    heard = []

    async def main(loop):
        link = await reach(loop, str(ann.home("ann")))
        await link.watch(heard.append)
        while not heard:
            await loop.sleep(0.02)
        await link.close()
    ann.start(ann.argv("bob", "--name", "bob", "--port", ann.port, "up"))
    on_loop(main)
    assert "bob" in heard[0] and "is here" in heard[0]


def test_another_identity_that_claims_to_be_the_owner_is_refused(ann, tmp_path):
    async def main(loop):
        stranger = Identity.load_or_create(loop.disk, str(tmp_path / "stranger"), loop.entropy)
        me = Identity.load_or_create(loop.disk, str(ann.home("ann")), loop.entropy)
        link = RootLink(loop, "", {"pid": 0, "port": ann.port}, stranger,
                        Networks(str(tmp_path / "stranger"), stranger, loop.disk, loop.entropy))
        link._identity = me                       # whom it expects at the other end
        await link.open()
        await within(loop, link.lost, 5.0)        # it says HELLO as the owner and is thrown out
    before = refused(ann, "role")
    on_loop(main)
    assert refused(ann, "role") == before + 1


def own_address():
    """An address of this computer that is not loopback, or ""."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return probe.getsockname()[0]


@pytest.mark.skipif(own_address() in ("", "127.0.0.1"), reason="this computer has loopback only")
def test_the_own_identity_is_the_owner_from_loopback_only(ann, monkeypatch):
    monkeypatch.setattr(rootlink, "LOOPBACK", own_address())

    async def main(loop):
        me = Identity.load_or_create(loop.disk, str(ann.home("ann")), loop.entropy)
        link = RootLink(loop, "", {"pid": 0, "port": ann.port}, me, Networks(str(ann.home("ann")), me, loop.disk, loop.entropy))
        await link.open()
        await within(loop, link.lost, 5.0)
    before = refused(ann, "identity")
    on_loop(main)
    assert refused(ann, "identity") == before + 1


def test_a_home_without_a_root_says_so_and_is_not_made(tmp_path):
    async def main(loop):
        await reach(loop, str(tmp_path / "nowhere"))
    with pytest.raises(NoRoot) as caught:
        on_loop(main)
    assert caught.value.exit == 3 and not (tmp_path / "nowhere").exists()


def test_a_root_that_does_not_answer_is_named_by_its_pid(tmp_path):
    from p2p.system import HomeLock
    import json
    import os
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    lock = HomeLock(str(home / "lock"))
    assert lock.acquire()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))               # bound and not listening: the connection is refused
        (home / "root.json").write_text(json.dumps({"pid": os.getpid(), "port": deaf.getsockname()[1], "state": ""}))

        async def main(loop):
            await reach(loop, str(home))
        with pytest.raises(P2PError) as caught:
            on_loop(main)
    lock.release()
    assert f"pid {os.getpid()}" in str(caught.value) and caught.value.code == "no-answer"
