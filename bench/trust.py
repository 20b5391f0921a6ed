"""What trust costs: handshakes beside bare `ssl`, and floods beside their attacker. `python -m bench.trust [--json] [--rounds N]`.

Handshakes: the same blocking client, with the same key and certificate, dials the product's server (TLS, then a HELLO each
way and one request) and a bare blocking `ssl` server (TLS, then one byte each way), in interleaved rounds; the ratio of two
rounds that follow each other is the figure, since absolute times do not hold on a shared machine.

Joins: two roots that have met; one invites, the other says `network join CODE` and leaves again. Told are the whole command,
from its start until a member has greeted the new one and the command has ended, beside one that only asks for the ID (what
starting Python and reaching the root cost), and the parts of SPAKE2 on one core.

Floods: each attack of a list runs for a while against a real root in a network namespace (needs root; the bed of tests/attacks).
Told are the CPU time of the root for each second of the attacker's (its kernel's work for the packets included), what the
root refused it for, how much memory it took, and how long a friend's round trip took meanwhile. The attacker is Python, too:
one in C spends less, so that the ratios compare defences and not languages.
"""
import argparse
import contextlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import time

from p2p import proto
from p2p.codec import frame
from p2p.sync.catalogue import Offer
from p2p.trust.pake import Password, Run, fresh_scalar
from tests.attacks.hostile import LAN, Member, Wire, inside
from tests.attacks.target import Target, three_hosts
from tests.lab import unavailable
from tests.nodes import Nodes

ROUNDS = 9
HANDSHAKES = 150       # of one round
SECONDS = 2.0          # of one flood

BARE = """
import socket, sys
from bench.trust import networks
context = networks(sys.argv[1]).server_context()
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
print(listener.getsockname()[1], flush=True)
while True:
    sock = context.wrap_socket(listener.accept()[0], server_side=True)
    sock.sendall(b"x")
    sock.recv(1)
    sock.close()
"""
OURS = """
import pathlib, sys
from tests.ends import Bed
bed = Bed(pathlib.Path(sys.argv[1]))
end = bed.end("end")
print(end.server().port, flush=True)
while True:
    bed.loop.turn(1.0)
    end.ready.clear(), end.lost.clear()
"""


def networks(home):
    """A node's credentials, made where there are none."""
    from p2p.disk import Disk
    from p2p.trust.identity import Identity
    from p2p.trust.networks import Networks
    return Networks(home, Identity.load_or_create(Disk(), home, os.urandom), Disk(), os.urandom)


def spread(values):
    """median, min and max."""
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return dict({name: round(value, 3) for name, value in figures.items()}, rounds=len(values))


def cpu_of(pid):
    """Seconds of CPU of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- handshakes

def dial_ours(member, wire):
    """A connection that is ready on both ends and has answered."""
    line = member.dial(wire)
    line.request(proto.PING)
    line.close()


def dial_bare(member, wire):
    """TLS, and a byte each way."""
    with socket.create_connection((wire.target, wire.port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with member.context.wrap_socket(plain, server_hostname=LAN.tag.hex()) as tls:
            tls.recv(1)
            tls.sendall(b"x")


def handshakes(rounds, folder):
    """Handshakes per second of both, and the ratio of ours to bare: wall clock, and CPU of the server."""
    member = Member()
    servers = {}
    for name, source, dial in (("ours", OURS, dial_ours), ("bare", BARE, dial_bare)):
        process = subprocess.Popen([sys.executable, "-c", source, os.path.join(folder, name)], stdout=subprocess.PIPE, encoding="utf-8")
        servers[name] = process, dial, Wire(None, "127.0.0.1", int(process.stdout.readline()))
    rates, cpus = {"ours": [], "bare": []}, {"ours": [], "bare": []}
    try:
        for number, (name, (process, dial, wire)) in itertools.product(range(rounds + 1), servers.items()):
            began, spent = time.perf_counter(), cpu_of(process.pid)
            for _ in range(HANDSHAKES):
                dial(member, wire)
            if number:          # the first warms up
                rates[name].append(HANDSHAKES / (time.perf_counter() - began))
                cpus[name].append((cpu_of(process.pid) - spent) / HANDSHAKES * 1e3)
    finally:
        for process, *_ in servers.values():
            process.kill()
            process.communicate()
    return {"per_second": {name: spread(values) for name, values in rates.items()},
            "server_cpu_ms": {name: spread(values) for name, values in cpus.items()},
            "ratio_of_rates": spread([ours / bare for ours, bare in zip(rates["ours"], rates["bare"])]),
            "ratio_of_server_cpu": spread([ours / bare for ours, bare in zip(cpus["ours"], cpus["bare"])])}


# -- joins

def took(work):
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def joins(rounds, folder):
    """ms of a whole `network join CODE` that ends when the admin has greeted the new member, of `id`, and of the arithmetic."""
    nodes = Nodes(folder)
    figures = {"join_ms": [], "id_ms": [], "code_ms": [], "run_ms": [], "finish_ms": []}
    try:
        nodes.meet("ann", "bob")
        nodes.json("ann", "network", "create", "studio")
        for number in range(rounds + 1):
            code = nodes.json("ann", "network", "invite", "studio")["code"]
            said = []
            one = {"join_ms": took(lambda: said.append(nodes.run("bob", "network", "join", code))),
                   "id_ms": took(lambda: nodes.run("bob", "id")), "code_ms": took(lambda: Password.of(code))}
            assert "ann greeted you" in said[0].stdout, said[0]
            nodes.run("bob", "network", "leave", "studio")
            time.sleep(1.3)      # an inviter answers sixteen questions of one node in ten seconds
            password, ends = Password.of(code), []
            for is_a in (True, False):
                one["run_ms"] = took(lambda: ends.append(Run(password, is_a, fresh_scalar(os.urandom(48)), (b"a", b"b"))))
            one["finish_ms"] = took(lambda: ends[0].finish(ends[1].share))
            for name, value in one.items():
                figures[name] += [value] if number else []      # the first warms up
    finally:
        nodes.close()
    return {name: spread(values) for name, values in figures.items()}


# -- floods: each is a generator function of (target) that has done one more thing at each step

def datagrams(make):
    """A flood of what `make(member)` gives, from one address after the other."""
    def flood(target):
        eve = Member()
        socks = [target.wire.udp() for _ in range(8)]
        batch = make(eve)
        with contextlib.ExitStack() as stack:
            for sock in socks:
                stack.callback(sock.close)
            for sock in itertools.cycle(socks):
                for _ in range(50):
                    target.wire.throw(sock, [next(batch)])
                    yield
    return flood


def forever(make):
    """`make` called again and again."""
    return lambda member: (make(member) for _ in itertools.count())


def connections(say):
    """A flood of connections; `say(wire)` gives a socket that stays open for a while."""
    def flood(target):
        kept = []
        try:
            while True:
                with contextlib.suppress(OSError):
                    kept.append(say(target.wire))
                if len(kept) > 300:
                    kept.pop(0).close()
                yield
        finally:
            for sock in kept:
                sock.close()
    return flood


def said(data):
    """A plain connection that says this and waits."""
    def say(wire):
        sock = wire.tcp(timeout=2.0)
        sock.sendall(data)
        return sock
    return say


def client_hello():
    """A right first flight of TLS, recorded: whoever replays it computes nothing."""
    import ssl
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = Member().context.wrap_bio(incoming, outgoing, server_hostname=LAN.tag.hex())
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def frames(message, answered=True, **fields):
    """A flood of one message on one line; the attacker reads what comes, or nothing at all."""
    def flood(target):
        line, request, body = None, itertools.count(1), message.pack(**fields)
        many = 100 if len(body) < 1000 else 1
        while True:
            try:
                if line is None:
                    line = Member().dial(target.wire)
                    line.sock.settimeout(0.2)
                line.raw(b"".join(frame(message.number, next(request) if message.reply is not None else 0, body) for _ in range(many)))
                if answered:
                    line.sock.recv(1 << 16)
            except OSError:
                if line is not None and answered:
                    line.close()
                    line = None
            yield from itertools.repeat(None, many)
    return flood


def offers(target):
    """Catalogues of offers with right signatures, each newer than the last, that were signed before."""
    eve = Member()
    signed = [[Offer.signed(eve.key, f"app{number}", bytes(32), serial, LAN.tag, 1, 1).row() for number in range(30)]
              for serial in range(1, 30)]
    line = eve.dial(target.wire)
    for rows in itertools.cycle(signed):
        with contextlib.suppress(OSError):
            line.send(proto.CATALOGUE, offers=rows, holdings=[])
        yield
        time.sleep(0.05)


def invitations(target):
    """Requests to run something, which need an answer of a person."""
    eve = Member()
    line = eve.dial(target.wire)
    me = target.id
    for session in itertools.count(1):
        ends = [dict(id=node, name="x", status=0, address="10.77.9.1", port=1, exit=0) for node in (eve.id, me)]
        with contextlib.suppress(OSError):
            line.send(proto.INVITE, session=session, app="chat", version=os.urandom(32), publisher=eve.id, network=LAN.tag, files=1,
                      bytes=1, arguments=["x"], roster=ends, port=1, token=bytes(32), expires_s=60)
        yield


def beacon(**fields):
    """Beacons with a right MAC."""
    return forever(lambda eve: eve.beacon(**{key: value() if callable(value) else value for key, value in fields.items()}))


def attacks():
    """name -> flood."""
    eve = Member()
    wrong = eve.beacon()
    return {
        "udp: noise": datagrams(forever(lambda eve: os.urandom(200))),
        "udp: wrong MAC": datagrams(forever(lambda eve: wrong[:-1] + bytes([wrong[-1] ^ 1]))),
        "udp: one beacon replayed": datagrams(lambda eve: itertools.repeat(eve.beacon(port=1))),
        "udp: authentic beacons": datagrams(beacon(port=1)),
        "udp: questions": datagrams(beacon(port=1, answer=True)),
        "udp: invented nodes": datagrams(beacon(port=1, sender=lambda: os.urandom(32))),
        "tcp: silent connections": connections(said(b"")),
        "tcp: knocking": connections(lambda wire: wire.knock()),
        "tcp: plaintext": connections(said(b"GET / HTTP/1.1\r\n\r\n")),
        "tcp: half a handshake": connections(said(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")),
        "tcp: a recorded ClientHello": connections(said(client_hello())),
        "tls: members without a HELLO": connections(lambda wire: eve.dial(wire, greet=False)),
        "tls: members that come and go": connections(lambda wire: eve.dial(wire)),
        "frames: pings": frames(proto.PING),
        "frames: lines": frames(proto.SAY, text="x" * 60),
        "frames: who is there": frames(proto.NODES),
        "frames: manifests": frames(proto.MANIFEST, version=bytes(32)),
        "frames: nobody reads": frames(proto.NODES, answered=False),
        "frames: a catalogue with a wrong signature": frames(proto.CATALOGUE, holdings=[], offers=[
            dict(name="x", publisher=eve.key.public.spki, version=bytes(32), serial=1, network=LAN.tag, files=1, bytes=1,
                 signature=bytes(64))]),
        "frames: offers signed before": offers,
        "frames: invitations": invitations,
    }


def flooded(lab, flood):
    """One attack against a root of its own."""
    from p2p.trust.ecc import parse_node_id
    target = Target(lab)
    target.id = parse_node_id(target.json("id")["id"])
    friend = Member("friend").join(target.friends)
    before, trips = target.cpu(), []
    began = look = time.monotonic()
    steps = flood(target)
    stack = contextlib.ExitStack()
    stack.enter_context(inside(target.attacker.namespace))
    next(steps)
    spent, sent = time.thread_time(), 0
    away = 0.0
    while time.monotonic() - began < SECONDS:
        for _ in range(50):
            next(steps)
            sent += 1
            if time.monotonic() - look > 0.1:
                break
        if time.monotonic() - look > 0.1:
            pause, look = time.thread_time(), time.monotonic()
            target.look()
            friend.request(proto.PING)
            trips.append((time.monotonic() - look) * 1e3)
            away += time.thread_time() - pause
            look = time.monotonic()
    own = time.thread_time() - spent - away
    steps.close()
    stack.close()
    refused, root = target.refused(), target.cpu() - before
    friend.close()
    target.check(descriptors=1000)
    target.root.close()
    return {"sent": sent, "attacker_cpu_s": round(own, 3), "root_cpu_s": round(root, 3), "ratio": round(root / max(own, 1e-3), 2),
            "memory_mib": round(target.most_memory / (1 << 20), 1), "descriptors": target.most_descriptors,
            "friend_ms": round(statistics.median(trips), 2), "refused": refused}


def main():
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.trust", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved rounds of handshakes")
    parser.add_argument("only", nargs="*", help="attacks whose name holds one of these words; 'handshakes' or 'join' for those alone")
    options = parser.parse_args()
    import tempfile
    result = {"floods": {}}
    if not options.only or "handshakes" in options.only:
        with tempfile.TemporaryDirectory() as folder:
            result["handshakes"] = handshakes(options.rounds, folder)
    if not options.only or "join" in options.only:
        with tempfile.TemporaryDirectory() as folder:
            result["joins"] = joins(options.rounds, folder)
    if unavailable():
        result["floods"] = unavailable()
    else:
        with three_hosts() as lab:
            for name, flood in attacks().items():
                if not options.only or any(word in name for word in options.only):
                    result["floods"][name] = flooded(lab, flood)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, figure in [*result.get("handshakes", {}).items(), *result.get("joins", {}).items()]:
        print(f"{name:24} {figure}")
    for name, figure in result["floods"].items() if isinstance(result["floods"], dict) else ():
        print(f"{name:44} root/attacker {figure['ratio']:7} ({figure['root_cpu_s']} s / {figure['attacker_cpu_s']} s)  "
              f"sent {figure['sent']:7}  +{figure['memory_mib']} MiB  friend {figure['friend_ms']} ms  {figure['refused']}")


if __name__ == "__main__":
    main()
