"""pyzmq, in the style of its guide: PUSH/PULL one way, DEALER/ROUTER and REQ/REP for answers, PUB/SUB to many.

Small messages are one part with the product's header in front; large bodies are a part of their own, without copies.
"""
import zmq

from .end import HEADER, RESPONSE, WORD, tell


def listening(plan, kind):
    """A bound socket; its port is told."""
    sock = zmq.Context.instance().socket(kind)
    sock.setsockopt(zmq.LINGER, 1000)
    tell(sock.bind_to_random_port("tcp://127.0.0.1"))
    return sock


def connected(plan, kind):
    """A socket that is connected (or will be)."""
    sock = zmq.Context.instance().socket(kind)
    sock.connect(f"tcp://127.0.0.1:{plan.port}")
    return sock


def server_oneway(plan, meter):
    """Counts messages and says when all have come: on a second socket, since PULL cannot answer."""
    sock = listening(plan, zmq.PULL)
    back = zmq.Context.instance().socket(zmq.PUSH)
    back.connect(sock.recv().decode())
    handlers = {WORD: lambda request, body: None}
    large = plan.size >= 65536
    for count in (plan.warm, plan.count):
        for _ in range(count):
            if large:
                head, part = sock.recv_multipart(copy=False)
                word, request, length = HEADER.unpack(head.buffer)
                body = part.buffer
            else:
                data = sock.recv()
                word, request, length = HEADER.unpack_from(data)
                body = data[HEADER.size:]
            handlers[word](request, body)
        if count is plan.warm:
            meter.start()
        back.send(b"!")
    meter.stop()


def client_oneway(plan, meter):
    """Sends them."""
    sock, body = connected(plan, zmq.PUSH), b"x" * plan.size
    back = zmq.Context.instance().socket(zmq.PULL)
    sock.send(f"tcp://127.0.0.1:{back.bind_to_random_port('tcp://127.0.0.1')}".encode())
    large = plan.size >= 65536
    for count in (plan.warm, plan.count):
        meter.start()
        for _ in range(count):
            if large:
                sock.send(HEADER.pack(WORD, 0, len(body)), zmq.SNDMORE)
                sock.send(body, copy=False)
            else:
                sock.send(HEADER.pack(WORD, 0, len(body)) + body)
        back.recv()
    meter.stop()


def server_rtt(plan, meter):
    """Answers until it is told to end."""
    is_one = plan.outstanding == 1
    sock = listening(plan, zmq.REP if is_one else zmq.ROUTER)
    meter.start()
    while True:
        identity = None if is_one else sock.recv()
        data = sock.recv()
        word, request, length = HEADER.unpack_from(data)
        if not length:
            break
        if not is_one:
            sock.send(identity, zmq.SNDMORE)
        sock.send(HEADER.pack(RESPONSE, request, length) + data[HEADER.size:])
    meter.stop()


def client_rtt(plan, meter):
    """Keeps `outstanding` requests on the way; each answer finds its own."""
    sock, body, waiting = connected(plan, zmq.REQ if plan.outstanding == 1 else zmq.DEALER), b"x" * plan.size, {}

    def ask(request):
        waiting[request] = ask
        sock.send(HEADER.pack(WORD, request, len(body)) + body)
    for count in (plan.warm, plan.count):
        meter.start()
        for request in range(1, plan.outstanding + 1):
            ask(request)
        for left in range(count - 1, -1, -1):
            data = sock.recv()
            word, request, length = HEADER.unpack_from(data)
            again = waiting.pop(request)
            if left >= plan.outstanding:
                again(request + plan.outstanding)
    meter.stop()
    sock.send(HEADER.pack(WORD, 0, 0))


def server_fanout(plan, meter):
    """PUB to all."""
    sock = zmq.Context.instance().socket(zmq.XPUB)
    sock.setsockopt(zmq.SNDHWM, 0)
    sock.setsockopt(zmq.XPUB_VERBOSE, 1)
    body = b"x" * plan.size
    tell(sock.bind_to_random_port("tcp://127.0.0.1"))
    for _ in range(plan.connections):
        sock.recv()
    meter.start()
    for _ in range(plan.count):
        sock.send(HEADER.pack(WORD, 0, len(body)) + body)
    sock.setsockopt(zmq.LINGER, 20000)
    sock.close()
    zmq.Context.instance().term()       # all is sent when it returns
    meter.stop()


def client_fanout(plan, meter):
    """Takes them all."""
    poller = zmq.Poller()
    for _ in range(plan.connections):
        sock = connected(plan, zmq.SUB)
        sock.setsockopt(zmq.RCVHWM, 0)
        sock.setsockopt(zmq.SUBSCRIBE, b"")
        poller.register(sock, zmq.POLLIN)
    handlers = {WORD: lambda request, body: None}
    left = plan.count * plan.connections
    meter.start()
    while left:
        for sock, _ in poller.poll():
            try:
                while True:
                    data = sock.recv(zmq.NOBLOCK)
                    word, request, length = HEADER.unpack_from(data)
                    handlers[word](request, data[HEADER.size:])
                    left -= 1
            except zmq.Again:
                pass
    meter.stop()
