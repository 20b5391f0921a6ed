"""`python -m tests.sim`: see docs/simulation.md."""

import argparse
import sys
import time

from .run import Broken, Simulation, names_of, report


def main(words=None):
    """The exit code: 0 all promises were kept, 1 one was broken, 2 wrong words."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Real nodes in virtual time, by a seed.")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=30.0, help="virtual ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="as many runs, with the seeds that follow")
    parser.add_argument("--faults", default="all", help="all, none, or names with commas between them")
    parser.add_argument("--quiet", action="store_true", help="the summary only")
    parser.add_argument("--trace", help="write every event to this file")
    given = parser.parse_args(words)
    try:
        faults = names_of(given.faults)
    except ValueError as error:
        parser.error(str(error))
    for seed in range(given.seed, given.seed + given.seeds):
        if not _one(given, seed, faults):
            return 1
    return 0


def _one(given, seed, faults):
    began = time.process_time()
    file = open(given.trace, "w", encoding="utf-8") if given.trace else None
    simulation = Simulation(given.nodes, seed, faults, (lambda line: None) if given.quiet else print,
                            (lambda line: file.write(line + "\n")) if file else None)
    command = f"python -m tests.sim --nodes {given.nodes} --minutes {given.minutes:g} --seed {seed} --faults {given.faults}"
    try:
        simulation.run(given.minutes * 60)
    except Broken as error:
        report(simulation, error, command)
        return False
    finally:
        if file:
            file.close()
    for line in simulation.summary():
        print(line)
    # Not to stdout, which is the same for the same seed
    print(f"seed {seed}: {given.nodes * given.minutes / 60:.1f} node-hours in {time.process_time() - began:.1f} s",
          file=sys.stderr, flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
