"""The way to the root that runs on this home, for one-shot verbs and for a shell beside it.

It is the same protocol over the same TLS as between any two nodes, on loopback; what makes it the owner's is this
node's own key, which lies in the home. Whether a root runs is told by the home's lock and never by a file that a
crash may have left behind; the file only says on which port.

The commands themselves run in the root. What is here carries their output to a Caller and the Caller's keys,
sizes and interrupts back. If the Caller cannot print as fast as the root sends, the connection is not read.
"""

import json
import os
from types import SimpleNamespace

from . import __version__, limits, proto, system
from .client import Client
from .dispatch import Dispatch
from .errors import LinkDown, P2PError, Refusal, UserError
from .owner import ROOT_FILE
from .trust.identity import Identity
from .trust.networks import Networks, check_tls
from .verbs.declare import check_size

LOOPBACK = "127.0.0.1"     # from elsewhere a root takes nobody for its owner
LOCK_FILE = "lock"
STARTING = 10.0            # s that a root may take from its lock to its port
ENDING = 20.0              # s that a root may take to end after it said goodbye: its jobs have 5
POLL = 0.03                # s between two looks at the lock
KNOCKS = 7                 # connections tried beside each other: a flood may fill the root's queue, and may push one of them out again
ANSWER = 1.0               # s an interrupted command has for its own end
MAX_ROOT_FILE = 4096
INTERRUPTED = 130

assert KNOCKS < limits.MAX_PENDING_ADDRESS      # else they would push out each other


class NoRoot(UserError):
    """No root runs on this home (exit code 3)."""

    def __init__(self, home):
        super().__init__(f"no root runs on {home}: start one with `up`, or the shell with no verb at all",
                         code="no-root", exit=3)


def home_lock(home):
    """The lock that a root holds on this home."""
    return system.HomeLock(os.path.join(home, LOCK_FILE))


async def reach(loop, home):
    """A RootLink to the root of this home. Raises NoRoot, or UserError where it does not answer."""
    check_tls()
    about = await _root_file(loop, home)
    identity = Identity.load_or_create(loop.disk, home, loop.entropy)
    link = RootLink(loop, home, about, identity, Networks(home, identity, loop.disk, loop.entropy))
    try:
        await link.open()
    except P2PError as error:
        if not home_lock(home).is_held():
            raise NoRoot(home)
        hint = "If it hangs, end that process"
        if not any(interface.is_loopback and interface.is_up and interface.addresses for interface in loop.interfaces()):
            hint = "This computer's loopback interface is down: bring it up (Linux: `ip link set lo up`)"
        raise UserError(f"the root of {home} (pid {about['pid']}) does not answer: {error}. {hint}", code="no-answer")
    return link


async def _root_file(loop, home):
    """What the root wrote about itself; waits while it is starting."""
    lock = home_lock(home)
    deadline = loop.now() + STARTING
    while True:
        pid = lock.holder() if os.path.isdir(home) and lock.is_held() else 0
        if pid == 0:
            raise NoRoot(home)
        try:
            about = json.loads(loop.disk.read_bytes(os.path.join(home, ROOT_FILE), MAX_ROOT_FILE).decode("utf-8"))
            if about["pid"] == pid and 0 < int(about["port"]) < 65536:
                return about
        except (ValueError, KeyError, TypeError):
            pass
        except UserError as error:
            if error.code != "missing":
                raise
        if loop.now() > deadline:
            raise UserError(f"the root of {home} (pid {pid}) has not come up in {STARTING:g} s; if it hangs, end that process",
                            code="no-answer")
        await loop.sleep(POLL)


class RootLink:
    """One connection in the role of the owner. `lost` is a Future of its end."""

    is_local = False

    def __init__(self, loop, home, about, identity, networks):
        self.home = home
        self.pid = about["pid"]
        self.name = ""
        self.lost = loop.future()
        self._notice_to = None
        self.dispatch = Dispatch()
        self.dispatch.notice(proto.OUTPUT, self._on_output)
        self.dispatch.notice(proto.RAW, self._on_raw)
        self.dispatch.notice(proto.NOTICE, self._on_notice)
        self._loop = loop
        self._port = about["port"]
        self._identity = identity
        self._networks = networks
        self._connection = None
        self._callers = {}
        self._number = 0

    async def open(self):
        """Connect. Raises LinkDown or PeerError."""
        client = Client(self._loop, self._networks, self)
        self._connection = await client.dial([(LOOPBACK, self._port)] * KNOCKS, self._networks.tags[0], self._identity.node_id)
        self.name = self._connection.hello.name

    async def ended(self):
        """Until no root runs on this home any more. Raises UserError if that does not come."""
        deadline = self._loop.now() + ENDING
        lock = home_lock(self.home)
        while lock.is_held():
            if self._loop.now() > deadline:
                raise UserError(f"the root of {self.home} (pid {self.pid}) has not ended in {ENDING:g} s; end that process",
                                code="no-answer")
            await self._loop.sleep(POLL)

    async def close(self):
        """The commands are done."""
        self._connection.finish()
        await self._loop.sleep(0)          # a turn for the goodbye

    # -- as the connection's owner

    def greeting(self, connection):
        """This process's HELLO."""
        return {"role": proto.OWNER, "name": "", "version": __version__, "nonce": int.from_bytes(self._loop.entropy(8), "little"),
                "port": 0, "abilities": 0, "networks": [], "addresses": [], "view": 0}

    def connection_ready(self, connection):
        """The root has let us in."""
        connection.silence = None

    def connection_lost(self, connection, error):
        """The root has gone."""
        self.lost.set(error)

    # -- commands

    async def run(self, words, caller):
        """Run one command in the root; its exit code. Raises UserError."""
        check_size(words)
        self._number += 1
        number = self._number
        self._callers[number] = caller
        connection = self._connection
        reply = connection.request(
            proto.COMMAND, timeout=None, command=number, words=list(words), folder=caller.folder, as_json=caller.as_json,
            yes=caller.yes, columns=caller.columns, rows=caller.rows, color=caller.color, is_terminal=caller.is_terminal)
        caller.interrupted.add_callback(lambda _: self._interrupt(number, reply))
        pumps = [self._loop.start(self._pump_keys(number, caller)), self._loop.start(self._pump_sizes(number, caller))]
        try:
            return (await reply).exit
        except LinkDown:
            raise UserError(f"the root of {self.home} has ended", code="root-ended")
        except Refusal as error:
            raise UserError(str(error))
        finally:
            for pump in pumps:
                pump.cancel()
            del self._callers[number]

    def _interrupt(self, number, reply):
        if number in self._callers and self._connection.is_open:
            self._connection.send(proto.INTERRUPT, command=number)
            self._loop.call_later(ANSWER, reply.set, SimpleNamespace(exit=INTERRUPTED))

    async def _pump_keys(self, number, caller):
        while True:
            data = await caller.read()
            await self._connection.room()
            self._connection.send(proto.INPUT, command=number, data=data)
            if not data:
                return

    async def _pump_sizes(self, number, caller):
        while True:
            await caller.resized.wait()
            self._connection.send(proto.RESIZE, command=number, rows=caller.rows, columns=caller.columns)

    async def watch(self, on_notice):
        """Hear the root's notices from now on."""
        self._notice_to = on_notice
        await self._connection.request(proto.WATCH)

    # -- messages

    def _on_output(self, connection, fields):
        caller = self._callers.get(fields.command)
        if caller is None:
            return
        caller.write(fields.stream, fields.data)
        if not caller.has_room:
            connection.pause(True)
            self._loop.start(self._resume(connection, caller))

    async def _resume(self, connection, caller):
        await caller.room()
        connection.pause(False)

    def _on_raw(self, _connection, fields):
        caller = self._callers.get(fields.command)
        if caller is not None:
            caller.raw(fields.raw)

    def _on_notice(self, _connection, fields):
        if self._notice_to:
            self._notice_to(fields.text)
