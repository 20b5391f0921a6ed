"""An application's process, by a script that is drawn: it attaches to its root, listens, lives for a while, and ends.

It talks to its root with the product's own client, as an instance with its session's token. Some crash before they
attach, some never do, some are deaf for polite signals, some end the session for everybody. How a program really ended
is noted in the world, and what its host says of it is compared with that.
"""

import json
import signal

from p2p import proto
from p2p.client import Client
from p2p.dispatch import Dispatch
from p2p.links import Links

KINDS = ("plain", "plain", "plain", "crash", "mute", "deaf", "ender")


class Program:
    """As process.Process. `root`: the loop of the process that started it."""

    def __init__(self, root, argv, *, cwd, env, terminal, told, on_output, on_exit):
        from .loop import SimLoop
        self.host = root.host
        self.chance = self.host.life
        self.told = json.loads(told.decode("utf-8"))
        self.exit = None
        self._root = root
        self._on_output = on_output
        self._on_exit = on_exit
        self.host.programs_started += 1
        self.pid = 1000 + self.host.programs_started
        self.loop = SimLoop(root.world, self.host, f"{self.host.name}/{self.pid}")
        self.kind = self.host.program_kind or KINDS[self.chance.randrange(len(KINDS))]
        self._connection = None
        self._client = None
        self.host.programs[self] = None
        self.loop.call_later(0.05 + self.chance.random(), self._begin)

    # -- its life

    def _begin(self):
        if self.kind == "crash":
            self._end(1)
            return
        self._print(b"hello\n")
        if self.kind != "mute":
            self.dispatch = Dispatch()
            self.dispatch.notice(proto.ROSTER, lambda connection, told: None)
            self.dispatch.notice(proto.END, lambda connection, told: self._asked())
            me = bytes.fromhex(self.told["me"])
            self._client = Client(self.loop, self.host.node.networks, self)
            self._links = Links(self.loop, me, lambda connection: None, lambda node_id, connection, error: None)
            tag = bytes.fromhex(self.told["network"])
            self._client.dial([("127.0.0.1", self.told["root_port"])], tag, me)
        if self.kind != "stays":
            self.loop.call_later(self.chance.uniform(0.5, 90.0), self._had_enough)

    def _had_enough(self):
        if self.kind == "ender" and self._connection is not None and self._connection.is_ready:
            self._connection.send(proto.END, session=self.told["session"])
            self.loop.call_later(30.0, self._end, 3)
        else:
            self._end(self.chance.randrange(4))

    def _asked(self):
        if self.kind != "deaf":
            self.loop.call_later(self.chance.random() * 3, self._end, 0)

    # -- as the owner of its connection with its root

    def greeting(self, connection):
        return {"role": proto.INSTANCE, "name": self.told["name"], "version": "", "nonce": 1, "port": 0, "abilities": 0, "networks": [],
                "addresses": [], "view": 0, "session": self.told["session"], "token": bytes.fromhex(self.told["token"])}

    def connection_ready(self, connection):
        connection.silence = None
        self._connection = connection
        self._links.watch(connection)
        port = self.loop.free_port(self.told["port"]) or self.loop.free_port()
        connection.send(proto.LISTENING, port=port)

    def connection_lost(self, connection, error):
        self._links.lost(connection, error)
        self._end(0)                       # its root is gone

    # -- as a process

    def _print(self, data):
        self._root.turn(self._printed, data)

    def _printed(self, data):
        if self._on_output:
            self._on_output(data)

    def _end(self, code):
        if self.exit is not None:
            return
        self.exit = code
        self.loop.die()
        self.host.programs.pop(self, None)
        self.loop.world.exits[self.told["session"], self.host.name] = code
        self.host.finished[self.told["session"]] = self.loop.now()
        self.loop.world.note(f"{self.host.name}: program {self.pid} ({self.kind}) ended with {code}")
        self._root.world.add(0.0001, self._root.turn, self._tell)

    def _tell(self):
        on_exit, self._on_exit = self._on_exit, None
        if on_exit:
            on_exit(self.exit)

    def hang_up(self):
        """Its terminal is gone with its root."""
        self._end(-int(signal.SIGHUP))

    def signal(self, number):
        """As from its root."""
        if self.exit is None and (number == signal.SIGKILL or self.kind != "deaf" and number in (signal.SIGHUP, signal.SIGTERM)):
            self.loop.world.add(0.001 + self.chance.random() * 0.2, self._end, -int(number))

    def write(self, data):
        return len(data)

    def resize(self, rows, columns):
        pass

    def pause(self):
        pass

    def resume(self):
        pass

    def close(self):
        self._on_exit = None
        self._on_output = None
        if self.exit is None:
            self.signal(signal.SIGKILL)


