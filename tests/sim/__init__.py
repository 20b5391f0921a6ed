"""The whole framework in virtual time: real nodes by the hundred, one process, one seed.

`python -m tests.sim --nodes 50 --minutes 30 --seed 7 --faults all` runs the product's own Node with all its parts. What
is simulated lies below the loop's interface alone: time, chance, network, disk, children (docs/simulation.md).
"""
