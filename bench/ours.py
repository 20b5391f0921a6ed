"""The product under measurement: its own Server, Client and Connection; TLS is its own, plain is bench/plain.py."""
from p2p import limits, proto
from p2p.client import Client
from p2p.codec import RESPONSE as RESPONSE_FLAG
from p2p.codec import first_word
from p2p.dispatch import Dispatch
from p2p.fanout import Fanout
from p2p.links import Links
from p2p.loop import Loop
from p2p.server import Server

from .end import NUMBER, WORD, credentials, tell
from .plain import PlainLoop

ANSWER = first_word(NUMBER, RESPONSE_FLAG)


class End:
    """An owner of connections, and the loop it runs on."""

    def __init__(self, plan):
        self.plan = plan
        self.loop = Loop() if plan.tls else PlainLoop()
        self.credentials = credentials(plan) if plan.tls else None
        self.tag = self.credentials.tags[0] if plan.tls else b"plain---"
        self.dispatch = Dispatch()
        self.ready, self.lost = [], 0
        self.links = Links(self.loop, b"", None, None)
        limits.MAX_PENDING_ADDRESS = limits.MAX_PENDING = 2000      # all come from one address here

    def greeting(self, connection):
        """HELLO."""
        return dict(role=0, name="bench", version="1", nonce=1, port=0, abilities=0, networks=[], addresses=[], view=0)

    def connection_ready(self, connection):
        """One more."""
        self.ready.append(connection)
        self.links.watch(connection)

    def connection_lost(self, connection, error):
        """One less; the last one's end is the end of a server."""
        self.lost += 1
        if self.lost == self.plan.connections:
            self.loop.stop()

    connection_refused = connection_lost

    def serve(self):
        """Listen until all have gone."""
        server = Server(self.loop, self.credentials, self)
        tell(server.port)
        self.loop.run()

    def drive(self, work):
        """Dial all, eight at a time, then run the coroutine function `work(connections)`."""
        self.loop.start(self._drive(work))
        self.loop.run()

    async def _drive(self, work):
        client = Client(self.loop, self.credentials, self)
        connections = []
        while len(connections) < self.plan.connections:
            wave = [client.dial([("127.0.0.1", self.plan.port)], self.tag)
                    for _ in range(min(8, self.plan.connections - len(connections)))]
            connections += [await future for future in wave]
        try:
            await work(connections)
        finally:
            for connection in connections:
                connection.abort()
            self.loop.stop()


def server_oneway(plan, meter):
    """Counts messages and says when all have come."""
    end, count, last = End(plan), 0, plan.count + plan.warm

    def on_data(connection, request, body):
        nonlocal count
        count += 1
        if count == plan.warm:
            meter.start()
        elif count == last:
            meter.stop()
        else:
            return
        connection.post(WORD, 0, b"")
    end.dispatch.raw(proto.DATA, on_data)
    end.serve()


def client_oneway(plan, meter):
    """Sends in bursts, waits where there is no room."""
    end, body = End(plan), b"x" * plan.size

    async def work(connections):
        connection, = connections
        echo = end.loop.future()
        end.dispatch.raw(proto.DATA, lambda connection, request, body: echo.set())
        for _ in range(plan.warm):
            connection.post(WORD, 0, body)
        await echo
        echo = end.loop.future()
        meter.start()
        left = plan.count
        while left:
            burst = min(plan.burst, left)
            send_burst(connection, body, burst)
            left -= burst
            await connection.room(plan.room)
            await end.loop.sleep(0)
        await echo
        meter.stop()
    end.drive(work)


def send_burst(connection, body, count):
    """`count` messages, each by itself."""
    post = connection.post
    for _ in range(count):
        post(WORD, 0, body)


def server_rtt(plan, meter):
    """Answers."""
    end = End(plan)

    def on_data(connection, request, body):
        connection.post(ANSWER, request, body)
    end.dispatch.raw(proto.DATA, on_data)
    meter.start()
    end.serve()
    meter.stop()


def client_rtt(plan, meter):
    """Keeps `outstanding` requests on the way; each answer finds its own. With `futures` by Connection.request."""
    end, body, waiting = End(plan), b"x" * plan.size, {}
    left = 0
    done = end.loop.future()

    def ask(connection, request):
        waiting[request] = ask
        connection.post(WORD, request, body)

    def on_answer(connection, request, body):
        nonlocal left
        again = waiting.pop(request)
        left -= 1
        if left >= plan.outstanding:
            again(connection, request + plan.outstanding)
        elif not left:
            done.set()

    def ask_and_wait(connection, request):
        future = connection.request(proto.DATA, schema=0, fields=body)
        future.add_callback(lambda future: answered(connection, request, future.result()))

    def answered(connection, request, fields):
        waiting[request] = ask_and_wait
        on_answer(connection, request, fields)

    async def work(connections):
        nonlocal left, done, ask
        if plan.futures:
            ask = ask_and_wait
        else:
            end.dispatch.by_word[ANSWER] = on_answer
        for count in (plan.warm, plan.count):
            done, left = end.loop.future(), count
            meter.start()
            for request in range(1, plan.outstanding + 1):
                ask(connections[0], request)
            await done
        meter.stop()
    end.drive(work)


def server_fanout(plan, meter):
    """Sends one message a turn to all."""
    end, body = End(plan), b"x" * plan.size

    async def work():
        while len(end.ready) < plan.connections:
            await end.loop.sleep(0.01)
        meter.start()
        fanout = Fanout(end.loop)
        for _ in range(plan.count):
            fanout.post(end.ready, WORD, body)
            if not end.ready[0].has_room:
                await end.ready[0].room()
            await end.loop.sleep(0)
        for connection in end.ready:
            await connection.room(1)
        meter.stop()
    end.loop.start(work())
    end.serve()


def client_fanout(plan, meter):
    """Takes them all."""
    end = End(plan)
    done, left = end.loop.future(), plan.count * plan.connections

    def on_data(connection, request, body):
        nonlocal left
        left -= 1
        if not left:
            done.set()
    end.dispatch.raw(proto.DATA, on_data)

    async def work(connections):
        meter.start()
        await done
        meter.stop()
    end.drive(work)


async def idle(end, meter, before):
    """Memory once all is quiet, then CPU over some seconds."""
    await end.loop.sleep(end.plan.settle)
    memory = meter.memory() - before
    meter.start()
    await end.loop.sleep(end.plan.seconds)
    meter.stop()
    meter.result["memory"] = memory


def server_idle(plan, meter):
    """Keeps them alive."""
    end = End(plan)

    async def work():
        before = meter.memory()
        while len(end.ready) < plan.connections:
            await end.loop.sleep(0.01)
        await idle(end, meter, before)
    end.loop.start(work())
    end.serve()


def client_idle(plan, meter):
    """Keeps them alive, too."""
    end = End(plan)
    before = meter.memory()

    async def work(connections):
        await idle(end, meter, before)
        await end.loop.sleep(0.5)
    end.drive(work)
