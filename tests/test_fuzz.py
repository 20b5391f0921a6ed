"""A share of the fuzzing (tests/fuzz.py), and that it would find what it looks for."""

import random
import struct

import pytest

from p2p.sync.manifest import Manifest
from tests import fuzz


def test_damaged_bytes_bring_out_declared_errors_only():
    counts = fuzz.run(60_000, 1)
    assert all(sum(count) > 20 for count in counts.values()), counts


def test_bytes_that_nobody_has_seen_before_bring_out_declared_errors_only():
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    fuzz.run(20_000, seed)


def test_an_error_that_nobody_declared_is_found(monkeypatch):
    def decode(data):
        struct.unpack_from("<IIIIII", data)
    monkeypatch.setattr(Manifest, "decode", decode)
    with pytest.raises(fuzz.Finding, match="manifest raised error"):
        fuzz.run(60_000, 1)


def test_memory_that_grows_is_found(monkeypatch):
    kept = []

    def decode(data):
        kept.append(b"x" * (1 << 20))
    monkeypatch.setattr(Manifest, "decode", decode)
    with pytest.raises(fuzz.Finding, match="bytes more"):
        fuzz.run(100_000, 1)
