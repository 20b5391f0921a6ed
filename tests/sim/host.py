"""One computer: an address, a disk, clocks, at most one root, its programs, and a person in front of it.

The disk and with it the identity outlive the processes. The person answers requests after a while, or never.
"""

import json

from p2p.errors import LinkDown, Refusal, UserError
from p2p.node import Node

from .disk import Files
from .loop import SimLoop, interfaces_of

HOME = "/home/p2p"
PORT = 47474
SHARED = "/work"


class Host:
    """See the module."""

    def __init__(self, world, network, number, name=""):
        self.world = world
        self.network = network
        self.name = name or f"n{number}"
        self.ip = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        self.interfaces = interfaces_of(self.ip)
        self.entropy = world.chance(f"{self.name}/entropy")
        self.work = world.chance(f"{self.name}/work")
        self.life = world.chance(f"{self.name}/life")
        self.disk = Files(world)
        self.distance = 0.0001 + self.life.random() ** 4 * 0.02      # s to the switch: most are near
        self.sends_until = 0.0
        self.group = 0
        self.wall_offset = 0.0
        self.is_off = False
        self.listeners = {}
        self.udp = {}
        self.locks = {}
        self.programs = {}
        self.programs_started = 0
        self.finished = {}             # session -> when its program here ended
        self.loop = None
        self.node = None
        self.identity = None           # the node ID, once it has one
        self.starts = 0
        self.disturbed = 0.0           # when this computer was last kept from doing what it should
        self.is_started = False
        self.is_eager = True           # does its person do anything by himself?
        self.has_person = True         # who answers requests
        self.program_kind = None       # one of program.py's; None: drawn
        self.say_yes = 0.7
        self._next_port = 40000
        network.hosts[self.ip] = self
        world.hosts.append(self)

    def free_port(self):
        """An ephemeral port."""
        while True:
            self._next_port = 40000 + (self._next_port - 39999) % 20000
            if self._next_port not in self.listeners and not self.udp.get(self._next_port):
                return self._next_port

    @property
    def is_up(self):
        """Does a root run here and answer?"""
        return self.is_started and not self.loop.is_stopped

    def finished_before(self, when):
        """Sessions whose program here had ended by then."""
        return {number for number, at in self.finished.items() if at <= when}

    # -- the life of its root

    def boot(self):
        """Start a root."""
        assert self.node is None
        self.is_off = False
        self.starts += 1
        self.disturbed = self.world.now
        self.loop = SimLoop(self.world, self, self.name)
        self.loop.turn(self._boot)

    def _boot(self):
        self.node = Node(self.loop, HOME, name=self.name, port=PORT, entry="/p2pframe.py")
        self.loop.start(self._start())

    async def _start(self):
        node = self.node
        node.watchers.append(lambda text: self.world.note(f"{self.name} shows {text}"))
        started = self.loop.start(node.start())
        await self.loop.sleep(0)
        if hasattr(node, "identity"):          # it is spoken to before it has cleared up its store
            self.identity = node.identity.node_id
            self.world.identities[self.identity] = self
        try:
            await started
        except UserError as error:
            self.world.note(f"{self.name}: cannot start: {error}")
            self.world.add(5.0, self._try_again, self.loop)
            return
        self.is_started = True
        self.disturbed = self.world.now
        for look in self.world.on_start:
            look(self)
        if self.has_person:
            self.loop.call_later(self.life.uniform(0.5, 3.0), self._look_at_requests)
        self.loop.call_later(self.life.uniform(5.0, 60.0), self._act)

    def _try_again(self, loop):
        if self.loop is loop and self.node is not None:
            self.kill()
            self.boot()

    def lose_disk(self):
        """All files are gone, and the identity with them. Only while nothing runs."""
        assert self.node is None
        self.disk = Files(self.world)
        self.identity = None

    def kill(self):
        """SIGKILL: the kernel closes what it held, and hangs up on its programs."""
        self._end(False)

    def power_off(self):
        """Nothing is said to anybody."""
        self._end(True)
        self.is_off = True

    def _end(self, silently):
        if self.node is None:
            return
        loop, self.node = self.loop, None
        self.is_started = False
        self.disk.crash_in = None
        for program in list(self.programs):
            if silently:
                program.loop.die(True)
                self.programs.pop(program)
            else:
                program.hang_up()
        loop.die(silently)
        self.disturbed = self.world.now

    def crashed(self, loop):
        """A crash that was ordered has happened, in the middle of a write."""
        if loop is self.loop and self.node is not None:
            self.world.tell(f"{self.name}: crashed in the middle of a write")
            self.kill()

    def leave(self):
        """`down`: it says goodbye."""
        self.disturbed = self.world.now
        self.loop.turn(self._leave)

    def _leave(self):
        self.is_started = False
        task = self.loop.start(self.node.stop())
        task.add_callback(lambda done: self.world.add(0.5, self._left, self.loop))

    def _left(self, loop):
        if self.loop is loop and self.node is not None:
            self.kill()

    # -- the person

    def _look_at_requests(self):
        self.loop.call_later(self.life.uniform(0.5, 5.0), self._look_at_requests)
        asking = self.node.asking
        for row in asking.request_rows():
            draw = self.life.random()
            if draw < self.say_yes:
                asking.allow(row["request"], always=draw < 0.2)
            elif draw < self.say_yes + 0.15:
                asking.deny(row["request"])
            return                       # one at a time; the others wait, or expire

    def _act(self):
        self.loop.call_later(self.life.uniform(10.0, 90.0), self._act)
        if self.is_eager:
            self.loop.start(self._try(self._one_action()))

    async def _try(self, action):
        try:
            await action
        except (UserError, LinkDown, Refusal) as error:
            self.world.note(f"{self.name}: {error}")

    def _one_action(self):
        draw = self.life.random()
        if draw < 0.3:
            return self.share()
        if draw < 0.45:
            return self._sync()
        if draw < 0.85:
            return self.run()
        if draw < 0.92:
            return self._kill_a_job()
        return self._unshare()

    async def share(self):
        """A new version of one of this person's two applications."""
        name = f"{self.name}-{self.life.choice('ab')}"
        self.new_version(name)
        await self.node.offers.share(f"{SHARED}/{name}")

    def new_version(self, name):
        """Change the application's folder on the disk."""
        disk = self.disk.opened_by(self.loop)
        folder = f"{SHARED}/{name}"
        disk.make_dir(folder)
        disk.write_atomic(f"{folder}/main.py", json.dumps(self.life.random()).encode())
        for number in range(self.life.randrange(4)):
            size = int(self.life.random() ** 6 * 600_000)
            data = self.life.getrandbits(64).to_bytes(8, "little") * (size // 8 + 1)
            disk.write_atomic(f"{folder}/part{number}", data)

    async def _sync(self):
        rows = [row["name"] for row in self.node.offers.rows()]
        if rows:
            await self.node.offers.sync([self.life.choice(rows)])

    async def run(self):
        """Run some application with some others."""
        node = self.node
        rows = [f"{row['name']}" for row in node.offers.rows()]
        linked = [connection.peer_id for connection in node.links if connection.is_ready]
        if not rows or not linked:
            return
        self.life.shuffle(linked)
        await node.launcher.run(self.life.choice(rows), linked[:self.life.randrange(1, 5)], [])

    async def _kill_a_job(self):
        running = [job.number for job in self.node.launcher.jobs if job.state != "exited"]
        if running:
            self.node.launcher.kill(self.life.choice(running))

    async def _unshare(self):
        await self.node.offers.unshare(f"{self.name}-{self.life.choice('ab')}")
