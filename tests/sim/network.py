"""The network in memory: streams that are authenticated, datagrams that are not, and what happens to both.

A stream keeps its order and loses nothing, as TCP does, but may take as long as it likes: what cannot pass (a cut
cable, a computer without power) is tried again and again. So an end may be gone and the other not know it, until it
sends and is told by a reset, or hears nothing for too long. The "kernel" takes CAPACITY bytes for each direction.

A SimChannel has the seam of channel.TlsChannel. Who the other is comes from the other's own credentials, as TLS would
prove it; the steps of the handshake take their round trips and need both processes awake.

Datagrams are lost, come twice and overtake each other.
"""

from p2p import limits
from p2p.errors import LinkDown, PeerError

CAPACITY = 1 << 16           # bytes that a kernel holds for one direction of a stream
RETRY = 0.7                  # s until what could not pass is tried again
BYTES_A_SECOND = 12.5e6      # that one computer can send
QUEUED = 256                 # datagrams that wait for a process that is stopped
FIN, RESET = object(), object()


class Network:
    """Who reaches whom, and how fast."""

    def __init__(self, world):
        self.world = world
        self.hosts = {}              # address -> Host
        self.disturbed = 0.0         # when the network was last kept from doing what it should
        self.broadcasts = True       # do they pass?
        self.reset()
        self._chance = world.chance("network").random
        self._blocked = {}           # (from, to) -> None, one direction

    def reset(self):
        """As good as a network is."""
        self.loss = 0.01             # of the datagrams...
        self.twice = 0.01
        self.late = 0.02             # ...that are overtaken by others
        self.corrupt = 0.0
        self.jitter = 0.001          # s

    def be_perfect(self):
        """Better than any is."""
        self.loss = self.twice = self.late = self.jitter = 0.0

    def reset_stream(self, channel):
        """A box on the way sends a reset to both ends."""
        for end in (channel, channel.other):
            end.loop.host.disturbed = self.world.now
            end.broken()

    def inject(self, host, data, source):
        """A datagram from `host` to all, with another's address as its source."""
        for target in self.world.hosts:
            self.world.add(self.delay(host, target, len(data)), self._deliver, host, target, 47474, data, (source.ip, 47474))

    def passes(self, one, other):
        """Does a packet get from one computer to another now?"""
        if one is other:
            return not one.is_off
        return not (one.is_off or other.is_off or one.group != other.group or (one.ip, other.ip) in self._blocked)

    def block(self, one, other):
        """From now on nothing gets from one to the other."""
        self._blocked[one.ip, other.ip] = None

    def heal(self):
        """Everybody reaches everybody."""
        self._blocked.clear()
        for host in self.world.hosts:
            host.group = 0

    @property
    def is_whole(self):
        """Is nothing cut?"""
        return not self._blocked and all(host.group == 0 for host in self.world.hosts)

    def delay(self, one, other, size=0):
        """How long a packet takes, its wait behind others included."""
        if one is other:
            return 0.00005
        now = self.world.now
        one.sends_until = start = max(now, one.sends_until) + size / BYTES_A_SECOND
        return start - now + one.distance + other.distance + self._chance() * self.jitter

    def carry(self, one, other, call, *args):
        """Something that TCP repeats until it arrives."""
        self.world.add(self.delay(one, other), self._carry, one, other, call, args, 0)

    def _carry(self, one, other, call, args, tries):
        if self.passes(one, other):
            call(*args)
        elif tries < 100:
            self.world.add(RETRY, self._carry, one, other, call, args, tries + 1)

    def datagram(self, endpoint, data, host, port):
        """Send one; nobody knows whether it arrives."""
        source = endpoint.loop.host
        if host == "10.255.255.255":
            targets = self.world.hosts if self.broadcasts else []
        elif host.startswith("127."):
            targets = [source]
        else:
            targets = [self.hosts[host]] if host in self.hosts else []
        chance = self._chance
        for target in targets:
            if not target.udp.get(port):
                continue
            draw = chance() if target is not source else 1.0
            if draw < self.loss:
                continue
            delay = self.delay(source, target, len(data))
            address = (source.ip if not host.startswith("127.") else "127.0.0.1", endpoint.port)
            if draw > 1 - self.late:
                delay += chance() * 0.5
            self.world.add(delay, self._deliver, source, target, port, self._damaged(data), address)
            if chance() < self.twice:
                self.world.add(delay + chance() * 2.0, self._deliver, source, target, port, data, address)

    def _damaged(self, data):
        if self.corrupt and self._chance() < self.corrupt:
            at = int(self._chance() * len(data))
            return data[:at] + bytes([data[at] ^ 1 + int(self._chance() * 255)]) + data[at + 1:]
        return data

    def _deliver(self, source, target, port, data, address):
        if self.passes(source, target):
            for endpoint in list(target.udp.get(port, ())):
                endpoint.arrive(data, address)


class Endpoint:
    """As udp.Endpoint."""

    def __init__(self, loop, port, on_datagram, shared):
        self.loop = loop
        self._on_datagram = on_datagram
        self._waiting = 0
        if not port:
            port = loop.host.free_port()
        elif loop.host.udp.get(port) and not shared:
            raise OSError("the port is taken")
        self.port = port
        loop.host.udp.setdefault(port, []).append(self)
        loop.endpoints.append(self)

    def send(self, data, address):
        self.loop.host.network.datagram(self, bytes(data), address[0], address[1])
        return True

    def arrive(self, data, address):
        """From the network."""
        if self._waiting < QUEUED:
            self._waiting += 1
            self.loop.turn(self._read, data, address)

    def _read(self, data, address):
        self._waiting -= 1
        if self in self.loop.endpoints:
            self.loop.world.saw("udp", self.loop.name, address, data)
            self._on_datagram(data, address)

    def join(self, groups):
        pass

    def forget(self, indices):
        pass

    def close(self):
        if self in self.loop.endpoints:
            self.loop.endpoints.remove(self)
            self.loop.host.udp[self.port].remove(self)


class Listener:
    """As channel.Listener."""

    def __init__(self, loop, port, credentials, accept):
        self.loop = loop
        self.port = port or loop.host.free_port()
        if self.port in loop.host.listeners:
            raise OSError("the port is taken")
        self.credentials = credentials
        self.accept = accept
        loop.host.listeners[self.port] = self
        loop.listeners.append(self)

    def close(self):
        if self in self.loop.listeners:
            self.loop.listeners.remove(self)
            del self.loop.host.listeners[self.port]


class SimChannel:
    """One end of a stream. `other` is the other one, once there is one."""

    def __init__(self, loop, credentials, address, outgoing, tag):
        self.loop = loop
        self.address = address
        self.outgoing = outgoing
        self.tag = tag
        self.peer_id = b""
        self.owner = None
        self.other = None
        self.credentials = credentials
        self.state = "connecting" if outgoing else "handshake"
        self.is_lost = False         # somewhere on the way this stream was forgotten: nothing arrives, nobody is told
        self._network = loop.host.network
        self._inbox = []
        self._unread = 0             # bytes in the inbox and on their way to it
        self._flight = []            # what is on its way, in order
        self._arrives = 0.0          # when the last of it will
        self._ended = None
        self._is_paused = self._wants_write = self._is_woken = self._is_reset = False
        loop.channels[self] = None

    @property
    def is_loopback(self):
        return self.address[0].startswith("127.")

    @property
    def local_host(self):
        return "127.0.0.1" if self.is_loopback else self.loop.host.ip

    @property
    def is_closed(self):
        return self.state == "closed"

    def start(self, owner):
        self.owner = owner
        if self.outgoing:
            self._syn(0)
        else:
            self._carry(self.other._server_speaks)

    def _carry(self, call, *args):
        self._network.carry(self.loop.host, self._far(), call, *args)

    def _far(self):
        return self.loop.host if self.is_loopback else self._network.hosts.get(self.address[0])

    # -- opening: SYN, accept, the server's flight, the client's flight

    def _syn(self, tries):
        target = self._far()
        if target is not None and self.state == "connecting":
            self.loop.world.add(self._network.delay(self.loop.host, target), self._syn_arrives, target, tries)

    def _syn_arrives(self, target, tries):
        here = self.loop.host
        if self.state != "connecting":
            return
        if not self._network.passes(here, target) or not self._network.passes(target, here):
            self.loop.world.add(1.0, self._syn, tries + 1)
            return
        listener = target.listeners.get(self.address[1])
        if listener is None:
            self._carry(self._turn_lost, LinkDown(f"{self.address[0]}: nothing listens there", "refused"))
            return
        source = "127.0.0.1" if self.is_loopback else here.ip
        server = SimChannel(listener.loop, listener.credentials, (source, here.free_port()), False, self.tag)
        server.other, self.other = self, server
        listener.loop.turn(listener.accept, server)

    def _turn_lost(self, error):
        self.loop.turn(self._lose, error)

    def _server_speaks(self):
        self.loop.turn(self._client_opens)

    def _client_opens(self):
        if self.state != "connecting":
            return
        if self.other.state != "handshake":
            self._lose(LinkDown(f"{self.address[0]} closed the connection", "eof"))
            return
        if self.other.credentials.by_tag(self.tag) is None:
            error = PeerError(f"{self.address[0]}: TLS refused: unrecognized name", "tls")
            self._carry(self.other._turn_lost, error)
            self._lose(error)
            return
        self.state = "open"
        self.peer_id = self.other.credentials._identity.node_id
        self._carry(self.other._client_speaks)
        self.owner.channel_open()

    def _client_speaks(self):
        self.loop.turn(self._server_opens)

    def _server_opens(self):
        if self.state == "handshake":
            self.state = "open"
            self.peer_id = self.other.credentials._identity.node_id
            self.owner.channel_open()
            if self.state == "open" and (self._inbox or self._ended):
                self._readable()

    # -- an open channel

    def receive(self, budget):
        inbox = self._inbox
        if not inbox:
            if self._ended:
                raise self._ended
            return b""
        taken = count = 0
        for chunk in inbox:
            taken += len(chunk)
            count += 1
            if taken >= budget:
                break
        chunks = inbox[:count]
        del inbox[:count]
        self._unread -= taken
        if self.other._wants_write:
            self._carry(self.other._has_room)
        if inbox or self._ended:
            self._read_again()
        return b"".join(chunks)

    def receive_into(self, place):
        data = self.receive(len(place))
        if len(data) > len(place):
            self._inbox.insert(0, data[len(place):])
            self._unread += len(data) - len(place)
            self._read_again()
        count = min(len(data), len(place))
        place[:count] = data[:count]
        return count

    def send_many(self, views):
        taken = 0
        for view in views:
            count = self.send(view)
            taken += count
            if count < len(view):
                break
        return taken

    def send(self, data):
        if self._is_reset:
            raise LinkDown(f"{self.address[0]}: the connection was reset", "reset")
        other = self.other
        room = CAPACITY - other._unread
        if room <= 0:
            return 0
        taken = bytes(data[:room])
        other._unread += len(taken)
        self._put(taken, len(taken))
        return len(taken)

    def _put(self, item, size):
        other = self.other
        world = self.loop.world
        arrives = max(world.now + self._network.delay(self.loop.host, other.loop.host, size), other._arrives)
        other._arrives = arrives
        other._flight.append(item)
        world.timers.add(arrives, other._arrive)

    def _arrive(self):
        """The next of what is on its way reaches this computer (not yet the process)."""
        other = self.other
        if self.is_lost or not self._network.passes(other.loop.host, self.loop.host):
            if self.state == "closed" and other.state == "closed":
                self._flight.clear()
            else:
                self.loop.world.add(RETRY, self._arrive)
            return
        if not self._flight:
            return
        item = self._flight.pop(0)
        if item is FIN or item is RESET:
            self._other_ended(item)
        elif self.state == "closed":
            self._unread -= len(item)
            if not other._is_reset and other.state != "closed":
                self._put(RESET, 0)
        elif self.state == "closing":
            self._unread -= len(item)
        else:
            self.loop.world.saw("tcp", self.loop.name, other.loop.name, item)
            self._inbox.append(item)
            self._wake()

    def _other_ended(self, item):
        if self.state == "closing":
            self.abort()
        elif self.state in ("open", "handshake"):
            self.loop.world.saw("end", self.loop.name, self.other.loop.name, b"")
            if item is RESET:
                self._is_reset = True
                self._ended = LinkDown(f"{self.address[0]}: the connection was reset", "reset")
            elif self._ended is None:
                self._ended = LinkDown(f"{self.address[0]} closed the connection", "eof")
            self._wake()

    def _wake(self):
        if self.state == "open" and not self._is_paused and not self._is_woken:
            self._is_woken = True
            self.loop.turn(self._readable)

    def _read_again(self):
        if not self._is_woken:
            self._is_woken = True
            self.loop.call_later(0, self._readable)

    def _readable(self):
        self._is_woken = False
        if self.state == "open" and not self._is_paused:
            self.owner.channel_readable()

    def _has_room(self):
        self.loop.turn(self._writable)

    def _writable(self):
        if self.state == "open" and self._wants_write:
            self.owner.channel_writable()

    def want_write(self, wanted):
        self._wants_write = wanted

    def pause(self, paused):
        if self._is_paused and not paused and (self._inbox or self._ended):
            self._read_again()
        self._is_paused = paused

    # -- ending

    def finish(self):
        if self.state != "open":
            self.abort()
            return
        self.state = "closing"
        self._put(FIN, 0)
        if self._ended is not None:
            self.abort()
        else:
            self.loop.call_later(limits.LINGER, self.abort)

    def abort(self):
        was, self.state = self.state, "closed"
        self.loop.channels.pop(self, None)
        if was == "open":
            self._put(RESET if self._inbox else FIN, 0)
        elif was in ("handshake", "connecting") and self.other is not None and self._far() is not None:
            self._carry(self.other._turn_lost, LinkDown(f"{self.address[0]} closed the connection", "eof"))

    def broken(self):
        """A reset arrived that the other end did not send."""
        if self.state in ("open", "handshake"):
            self._other_ended(RESET)

    def vanish(self):
        """The computer has no power any more: nobody is told."""
        self.state = "closed"
        self.loop.channels.pop(self, None)

    def _lose(self, error):
        if self.state in ("connecting", "handshake"):
            self.state = "closed"
            self.loop.channels.pop(self, None)
            self.owner.channel_lost(error)
        elif self.state == "open" and self._ended is None:      # the server had gone before this end's flight was there
            self._ended = error
            self._wake_in_turn()

    def _wake_in_turn(self):
        self._read_again()


def dial(loop, host, port, credentials, tag):
    """As channel.dial."""
    return SimChannel(loop, credentials, (host, port), True, tag)
