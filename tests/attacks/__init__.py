"""Attacks on real roots: `hostile` speaks the protocol badly in each way that docs/security.md names.

A root runs in a network namespace of the lab, the attacker has another with as many addresses as it likes, and a third
is where friends live who must be served meanwhile. After each attack the same root must still be there, with bounded
memory and a bounded log (`conftest`). What needs no network (paths, disks, keys) is attacked in the tests of its module;
docs/security.md says which test stands for which threat.
"""
