"""Measures how long a message takes and how fast data goes between each two computers of the session, one pair after the other.

    run netcheck --all
    run netcheck bob eve -- --seconds 3

Times are of whole round trips, the median of several, between applications and over TLS, as any application would see them. Speeds are of
one stream in one direction. The host's computer shows the tables.
"""

import argparse
import statistics
import time

import p2p

ROUNDS = 20                # messages whose round trip is measured
PIECE = bytes(256 * 1024)
LONGEST = 60.0             # s from each to each


class Ping(p2p.Message):
    number: int


class Data(p2p.Message):
    data: bytes


class Flushed(p2p.Message):
    """Behind the data: what has come so far is all."""
    seconds: float


class Measure(p2p.Message):
    """From the host: measure to this peer (its node ID)."""
    to: bytes
    seconds: float


class Measured(p2p.Message):
    round_trip: float      # s; -1: it is gone
    speed: float           # bytes a second; -1: not measured


def arguments():
    parser = argparse.ArgumentParser(prog="run netcheck [NODE...|--all] --", description="Round trips and speeds between each two.")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="how long to send from each to each (1)")
    parser.add_argument("--no-speed", action="store_true", help="round trips alone: sends next to nothing")
    given = parser.parse_args()
    if not 0 < given.seconds <= LONGEST:
        parser.error(f"--seconds wants more than 0 and at most {LONGEST:g}")
    return given


given = arguments()
app = p2p.attach("netcheck")


@app.on(Ping)
def answer(ping):
    return ping


@app.on(Data)
def take(data):
    pass


@app.on(Flushed)
def flushed(flushed):
    return flushed


@app.on(Measure)
def measure_for_host(asked):
    if asked.sender is app.host and 0 <= asked.seconds <= LONGEST:
        app.send(app.host, measure(asked))


def measure(asked):
    """What this instance finds out about its way to another."""
    peer = next((peer for peer in app.peers if peer.id == asked.to), None)
    try:
        times = []
        for number in range(ROUNDS if peer else 0):
            began = time.perf_counter()
            app.request(peer, Ping(number))
            times.append(time.perf_counter() - began)
        if not times:
            return Measured(-1.0, -1.0)
        return Measured(statistics.median(times), speed_to(peer, asked.seconds) if asked.seconds else -1.0)
    except (p2p.Gone, p2p.Timeout):
        return Measured(-1.0, -1.0)


def measured_by(one, asked):
    """The same of another instance. Meanwhile this one answers: it may be the one to which the other measures."""
    app.send(one, asked)
    deadline = time.monotonic() + 60 + 12 * asked.seconds
    while time.monotonic() < deadline and not app.has_ended:
        event = app.poll(1.0)
        if isinstance(event, (Ping, Flushed)):
            app.reply(event, event)
        elif isinstance(event, Measured) and event.sender is one:
            return event
        elif isinstance(event, p2p.Leave) and event.sender is one:
            break
    return None


def speed_to(peer, seconds):
    """Bytes a second, until the last of them has been read there."""
    sent, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        app.send(peer, Data(PIECE))
        sent += len(PIECE)
    app.request(peer, Flushed(seconds), timeout=30 + 10 * seconds)
    return sent / (time.perf_counter() - began)


def shown_time(found):
    return "-" if found is None or found.round_trip < 0 else f"{found.round_trip * 1000:.2f} ms"


def shown_speed(found):
    if found is None or found.speed < 0:
        return "-"
    return f"{found.speed * 8 / 1e6:.0f} Mbit/s" if found.speed * 8 < 1e9 else f"{found.speed * 8 / 1e9:.1f} Gbit/s"


def table(title, everybody, found, shown):
    """Rows: from whom; columns: to whom."""
    cells = [[title] + [peer.name for peer in everybody]]
    for one in everybody:
        cells.append([one.name] + ["" if one is other else shown(found.get((one, other))) for other in everybody])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        app.print("  ".join([row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]).rstrip())
    app.print()


def main():
    everybody = [app.me] + sorted(app.peers, key=lambda peer: peer.name)
    if len(everybody) < 2:
        app.print("Nobody else is here: run netcheck NODE... or --all")
        app.end()
        return
    found = {}
    seconds = 0.0 if given.no_speed else given.seconds
    pairs = [(one, other) for one in everybody for other in everybody if one is not other]
    for done, (one, other) in enumerate(pairs):
        app.print(f"{done + 1} of {len(pairs)}: {one.name} to {other.name}")
        asked = Measure(other.id, seconds)
        try:
            found[one, other] = measure(asked) if one is app.me else measured_by(one, asked)
        except p2p.UserError as error:           # it is gone
            app.print(f"{one.name}: {error}")
    app.print()
    table("round trip", everybody, found, shown_time)
    if seconds:
        table("speed", everybody, found, shown_speed)
    gone = sorted({pair[1].name for pair, one in found.items() if one is None or one.round_trip < 0})
    if gone:
        app.print(f"Not reached by everybody: {', '.join(gone)}. `doctor NODE` says what to do about it.")
    app.end()


if app.is_host:
    main()
else:
    app.run()
