"""asyncio and uvloop, in four styles: a Protocol that writes each message, streams, a Protocol that batches as the
product does, and a BufferedProtocol for large bodies. All decode the product's header and look handlers up by its word."""
import asyncio
import socket
import time
from struct import Struct

from .end import HEADER, RESPONSE, WORD, credentials, tell

KEEPALIVE = HEADER.pack(0x3270 | 1 << 16 | 2 << 32, 0, 0)
KEEPALIVE_EVERY, SILENCE = 2.0, 6.0       # s; the product's


class Usual(asyncio.Protocol):
    """The documented style: a buffer, a loop over complete frames, a write for each message."""

    def __init__(self, end):
        self.end = end
        self.buffer = b""
        self.handlers = end.handlers
        self.room = None

    def connection_made(self, transport):
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send = transport.write
        self.end.made(self)

    def connection_lost(self, error):
        self.end.lost(self)

    def data_received(self, data):
        data = self.buffer + data if self.buffer else data
        at, size = 0, len(data)
        while size - at >= 16:
            word, request, length = HEADER.unpack_from(data, at)
            stop = at + 16 + length
            if stop > size:
                break
            self.handlers[word](self, request, data[at + 16:stop])
            at = stop
        self.buffer = data[at:]

    def pause_writing(self):
        self.room = self.end.loop.create_future()

    def resume_writing(self):
        if self.room:
            self.room.set_result(None)
            self.room = None

    def burst(self, body, count):
        send = self.send
        for _ in range(count):
            send(HEADER.pack(WORD, 0, len(body)) + body)


class Batched(Usual):
    """The same batching as the product: one write a turn, a run of equal frames decoded by one iter_unpack."""

    def __init__(self, end):
        super().__init__(end)
        self.out = []
        self.runs = {}

    def connection_made(self, transport):
        super().connection_made(transport)
        self.send = self._send

    def _send(self, data):
        out = self.out
        if not out:
            self.end.loop.call_soon(self._flush)
        out.append(data)

    def _flush(self):
        out, self.out = self.out, []
        self.transport.write(b"".join(out))

    def data_received(self, data):
        data = self.buffer + data if self.buffer else data
        at, size = 0, len(data)
        handlers = self.handlers
        while size - at >= 16:
            word, request, length = HEADER.unpack_from(data, at)
            stop = at + 16 + length
            if stop > size:
                break
            count = (size - at) // (16 + length)
            if count < 4 or length > 1024:
                handlers[word](self, request, data[at + 16:stop])
                at = stop
                continue
            run = self.runs.get(length)
            if run is None:
                run = self.runs[length] = Struct(f"<QII{length}s").iter_unpack
            for word, request, another, body in run(memoryview(data)[at:at + count * (16 + length)]):
                if another != length:
                    break
                handlers[word](self, request, body)
                at += 16 + length
        self.buffer = data[at:]


class Buffered(asyncio.BufferedProtocol, Usual):
    """Large bodies go straight to their place."""

    def __init__(self, end):
        Usual.__init__(self, end)
        self.head, self.body = memoryview(bytearray(16)), memoryview(bytearray(end.plan.size))
        self.view, self.is_body = self.head, False

    def get_buffer(self, hint):
        return self.view

    def buffer_updated(self, count):
        self.view = self.view[count:]
        if len(self.view):
            return
        if not self.is_body:
            self.word, self.request, length = HEADER.unpack(self.head)
            self.whole = self.view = self.body[:length]
            self.is_body = length > 0
            if self.is_body:
                return
        self.view, self.is_body = self.head, False
        self.handlers[self.word](self, self.request, self.whole)

    def burst(self, body, count):
        for _ in range(count):
            self.transport.writelines([HEADER.pack(WORD, 0, len(body)), body])


STYLES = {"asyncio-protocol": Usual, "uvloop-protocol": Usual, "asyncio-batched": Batched, "asyncio-tls": Usual}


class End:
    """One process's end."""

    def __init__(self, plan):
        self.plan = plan
        self.handlers = {}
        self.ready, self.gone = [], 0
        self.style = Buffered if plan.size >= 65536 else STYLES.get(plan.impl, Usual)
        self.networks = credentials(plan) if plan.tls else None

    def made(self, protocol):
        self.ready.append(protocol)

    def lost(self, protocol):
        self.gone += 1
        if self.gone == self.plan.connections:
            self.finished.set_result(None)

    def run(self, coroutine):
        if self.plan.impl == "uvloop-protocol":
            import uvloop
            uvloop.install()
        asyncio.run(self._run(coroutine))

    async def _run(self, coroutine):
        self.loop = asyncio.get_running_loop()
        self.finished = self.loop.create_future()
        await coroutine

    async def serve(self, work=None):
        tls = self.networks.server_context() if self.plan.tls else None
        server = await self.loop.create_server(lambda: self.style(self), "127.0.0.1", 0, ssl=tls, backlog=1024)
        tell(server.sockets[0].getsockname()[1])
        if work:
            await work
        await self.finished

    async def connect(self):
        how = {}
        if self.plan.tls:
            tag = self.networks.tags[0]
            how = {"ssl": self.networks.client_context(tag), "server_hostname": tag.hex()}
        return [(await self.loop.create_connection(lambda: self.style(self), "127.0.0.1", self.plan.port, **how))[1]
                for _ in range(self.plan.connections)]


def server_oneway(plan, meter):
    """Counts messages and says when all have come."""
    end, count, last = End(plan), 0, plan.count + plan.warm

    def on_data(protocol, request, body):
        nonlocal count
        count += 1
        if count == plan.warm:
            meter.start()
        elif count == last:
            meter.stop()
        else:
            return
        protocol.send(HEADER.pack(WORD, 0, 0))
    end.handlers[WORD] = on_data
    end.run(_serve_streams(end) if plan.impl == "asyncio-streams" else end.serve())


def client_oneway(plan, meter):
    """Sends in bursts, waits where there is no room."""
    end = End(plan)
    end.run((_send_streams if plan.impl == "asyncio-streams" else _send)(end, meter))


async def _send(end, meter):
    plan, body = end.plan, b"x" * end.plan.size
    protocol, = await end.connect()
    echo = end.loop.create_future()
    end.handlers[WORD] = lambda protocol, request, body: echo.set_result(None)
    protocol.burst(body, plan.warm)
    await echo
    echo = end.loop.create_future()
    meter.start()
    left = plan.count
    while left:
        burst = min(plan.burst, left)
        protocol.burst(body, burst)
        left -= burst
        await asyncio.sleep(0)
        if protocol.room:
            await protocol.room
    await echo
    meter.stop()
    protocol.transport.abort()


async def _serve_streams(end):
    async def on_connection(reader, writer):
        writer.send = writer.write
        try:
            while True:
                word, request, length = HEADER.unpack(await reader.readexactly(16))
                end.handlers[word](writer, request, await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            end.finished.set_result(None)
    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    tell(server.sockets[0].getsockname()[1])
    await end.finished


async def _send_streams(end, meter):
    plan, body = end.plan, b"x" * end.plan.size
    reader, writer = await asyncio.open_connection("127.0.0.1", plan.port)
    for count in (plan.warm, plan.count):
        meter.start()
        for _ in range(count):
            writer.write(HEADER.pack(WORD, 0, len(body)) + body)
            await writer.drain()
        await reader.readexactly(16)
    meter.stop()
    writer.transport.abort()


def server_rtt(plan, meter):
    """Answers."""
    end = End(plan)
    end.handlers[WORD] = lambda protocol, request, body: protocol.send(HEADER.pack(RESPONSE, request, len(body)) + body)
    meter.start()
    end.run(end.serve())
    meter.stop()


def client_rtt(plan, meter):
    """Keeps `outstanding` requests on the way; each answer finds its own."""
    end = End(plan)
    end.run(_ask(end, meter))


async def _ask(end, meter):
    plan, body, waiting, left, done = end.plan, b"x" * end.plan.size, {}, 0, None

    def ask(protocol, request):
        waiting[request] = ask
        protocol.send(HEADER.pack(WORD, request, len(body)) + body)

    def on_answer(protocol, request, body):
        nonlocal left
        again = waiting.pop(request)
        left -= 1
        if left >= plan.outstanding:
            again(protocol, request + plan.outstanding)
        elif not left:
            done.set_result(None)
    end.handlers[RESPONSE] = on_answer
    protocol, = await end.connect()
    for count in (plan.warm, plan.count):
        done, left = end.loop.create_future(), count
        meter.start()
        for request in range(1, plan.outstanding + 1):
            ask(protocol, request)
        await done
    meter.stop()
    protocol.transport.abort()


def server_fanout(plan, meter):
    """Sends one message a turn to all."""
    end = End(plan)

    async def work():
        body = b"x" * plan.size
        while len(end.ready) < plan.connections:
            await asyncio.sleep(0.01)
        meter.start()
        for _ in range(plan.count):
            data = HEADER.pack(WORD, 0, len(body)) + body
            for protocol in end.ready:
                protocol.send(data)
            if end.ready[0].room:
                await end.ready[0].room
            await asyncio.sleep(0)
        while any(protocol.transport.get_write_buffer_size() for protocol in end.ready):
            await asyncio.sleep(0.001)
        meter.stop()
    end.run(end.serve(work()))


def client_fanout(plan, meter):
    """Takes them all."""
    end = End(plan)

    async def work():
        left, done = plan.count * plan.connections, end.loop.create_future()

        def on_data(protocol, request, body):
            nonlocal left
            left -= 1
            if not left:
                done.set_result(None)
        end.handlers[WORD] = on_data
        protocols = await end.connect()
        meter.start()
        await done
        meter.stop()
        for protocol in protocols:
            protocol.transport.abort()
    end.run(work())


class Alive(Usual):
    """With a keepalive: each connection has its timer, as the documentation's examples do."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.last_in = self.last_out = time.monotonic()
        self.timer = self.end.loop.call_later(KEEPALIVE_EVERY, self.tick)

    def connection_lost(self, error):
        self.timer.cancel()
        super().connection_lost(error)

    def data_received(self, data):
        self.last_in = time.monotonic()
        super().data_received(data)

    def tick(self):
        if time.monotonic() - self.last_in > SILENCE:
            self.transport.abort()
            return
        self.send(KEEPALIVE)
        self.timer = self.end.loop.call_later(KEEPALIVE_EVERY, self.tick)


def _idle_end(plan):
    end = End(plan)
    end.style = Alive
    end.handlers[HEADER.unpack(KEEPALIVE)[0]] = lambda protocol, request, body: None
    return end


async def _idle(end, meter, before):
    await asyncio.sleep(end.plan.settle)
    memory = meter.memory() - before
    meter.start()
    await asyncio.sleep(end.plan.seconds)
    meter.stop()
    meter.result["memory"] = memory


def server_idle(plan, meter):
    """Keeps them alive."""
    end = _idle_end(plan)

    async def work():
        before = meter.memory()
        while len(end.ready) < plan.connections:
            await asyncio.sleep(0.01)
        await _idle(end, meter, before)
    end.run(end.serve(work()))


def client_idle(plan, meter):
    """Keeps them alive, too."""
    end = _idle_end(plan)

    async def work():
        before = meter.memory()
        protocols = await end.connect()
        await _idle(end, meter, before)
        await asyncio.sleep(0.5)
        for protocol in protocols:
            protocol.transport.abort()
    end.run(work())
