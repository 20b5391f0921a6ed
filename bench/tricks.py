"""What each trick of the hot path is worth: `python -m bench.tricks`. The product beside itself with that trick taken out.

A factor says how many times more CPU (or wall time, where a case is about waiting) the same work costs without it.
Rounds are interleaved, as everywhere here. What is not worth its lines should go.
"""
import argparse
import statistics
import sys
import tempfile

from . import wire

# trick -> the case in which it shows
TRICKS = {
    "one flush a turn": "oneway_64",
    "runs of equal frames unpacked together": "oneway_64",
    "bytes queued are summed when asked for": "oneway_64",
    "answers leave by the handful": "rtt_64",
    "epoll asked directly": "rtt_1",
    "large bodies go from and to their place": "bulk_256k",
    "large bodies in their place, under TLS": "tls_bulk_256k",
    "broadcasts packed once, corked while the loop is busy": "fanout_50",
}


def take_out(trick):
    """In a process that is to be measured: make the product do without."""
    from p2p import codec, connection, fanout, loop, poller
    if trick == "one flush a turn":
        post = connection.Connection.post

        def post_and_flush(self, word, request, body):
            post(self, word, request, body)
            self._flush()
        connection.Connection.post = post_and_flush
    elif trick == "runs of equal frames unpacked together":
        codec.RUN_BODY = -1
    elif trick == "bytes queued are summed when asked for":
        header, large = connection._header, connection.LARGE

        def post_and_count(self, word, request, body):       # Connection.post, since a call around it would cost more than the count
            out = self._out
            if not out and not self._frames:
                self.loop.at_turn_end(self._flush)
            size = len(body)
            if size >= large:
                self._is_cold = True
            out.append(header(word, request, size))
            out.append(body)
            self._summed_bytes += size + 16
            self._summed = len(out)
        connection.Connection.post = post_and_count
    elif trick == "answers leave by the handful":
        connection.HANDFUL = connection.MANY = 1 << 30
    elif trick == "epoll asked directly":
        loop.poller = poller.SelectorPoller
    elif trick.startswith("large bodies"):
        codec.LARGE = connection.LARGE = 1 << 30
    elif trick.startswith("broadcasts"):
        def post_to_each(self, connections, word, body):
            for one in connections:
                one.post(word, 0, body)
        fanout.Fanout.post = post_to_each
    else:
        raise ValueError(f"no trick {trick}")


def main():
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.tricks", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=wire.ROUNDS, help=f"interleaved rounds ({wire.ROUNDS})")
    options = parser.parse_args()
    print("| trick | case | costs without it | min .. max |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="p2pbench") as homes:
        for trick, case in TRICKS.items():
            metric, _, plan, _ = wire.CASES[case]
            plan = dict(plan, homes=homes)
            factors = []
            for _ in range(options.rounds):
                with_it = wire.measure(plan, "ours", metric)
                factors.append(wire.measure(dict(plan, without=trick), "ours", metric) / with_it)
            print(f"| {trick} | {case} | {statistics.median(factors):.2f}x | {min(factors):.2f} .. {max(factors):.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
