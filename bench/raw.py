"""Blocking sockets, bare and under TLS, written as a C programmer would: one buffer, exact reads, gathered writes."""
import socket
import ssl

from .end import HEADER, RESPONSE, WORD, credentials, tell


def accept(plan):
    """The one connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    networks = credentials(plan) if plan.tls else None
    tell(listener.getsockname()[1])
    sock = listener.accept()[0]
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return networks.server_context().wrap_socket(sock, server_side=True) if plan.tls else sock


def connect(plan):
    """To the other end."""
    sock = socket.create_connection(("127.0.0.1", plan.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not plan.tls:
        return sock
    networks = credentials(plan)
    tag = networks.tags[0]
    return networks.client_context(tag).wrap_socket(sock, server_hostname=tag.hex())


def read_exactly(sock, view):
    """Fill `view`."""
    if not isinstance(sock, ssl.SSLSocket):
        if sock.recv_into(view, len(view), socket.MSG_WAITALL) < len(view):
            raise EOFError
        return
    while view:
        count = sock.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]


def send_all(sock, header, body):
    """Header and body without joining them, where the socket can."""
    if isinstance(sock, ssl.SSLSocket):
        sock.sendall(header + body)
        return
    sent = sock.sendmsg([header, body])
    if sent < len(header) + len(body):
        sock.sendall(memoryview(body)[sent - len(header):])


def server_oneway(plan, meter):
    """Counts messages and says when all have come."""
    sock = accept(plan)
    head, buffer = memoryview(bytearray(HEADER.size)), memoryview(bytearray(plan.size))
    handlers = {WORD: lambda request, body: None}
    for count in (plan.warm, plan.count):
        for _ in range(count):
            read_exactly(sock, head)
            word, request, length = HEADER.unpack(head)
            body = buffer[:length]
            read_exactly(sock, body)
            handlers[word](request, body)
        if count is plan.warm:
            meter.start()
        sock.sendall(b"!")
    meter.stop()


def client_oneway(plan, meter):
    """Sends them."""
    sock, body = connect(plan), b"x" * plan.size
    for count in (plan.warm, plan.count):
        meter.start()
        for _ in range(count):
            send_all(sock, HEADER.pack(WORD, 0, len(body)), body)
        sock.recv(1)
    meter.stop()


def server_rtt(plan, meter):
    """Answers."""
    sock = accept(plan)
    meter.start()
    while True:
        data = sock.recv(4096)
        if not data:
            break
        word, request, length = HEADER.unpack_from(data)
        sock.send(HEADER.pack(RESPONSE, request, length) + data[HEADER.size:])
    meter.stop()


def client_rtt(plan, meter):
    """One at a time."""
    sock, body = connect(plan), b"x" * plan.size
    for count in (plan.warm, plan.count):
        meter.start()
        for request in range(count):
            sock.send(HEADER.pack(WORD, request, len(body)) + body)
            word, answered, length = HEADER.unpack_from(sock.recv(4096))
            assert answered == request
    meter.stop()
