"""What holds for every test: a deadline, and what a test on several hosts needs.

A test that hangs would cost the whole run, so each has SIGALRM at its back (60 s; 300 s when marked `slow` or
`lab`); the failure shows where it hung. Tests marked `lab` are skipped with the reason where network namespaces
cannot be made, but fail when CI=true: there, a green run must mean that they ran.
"""
import os
import signal

import pytest

DEADLINE = 60          # s for one test
SLOW_DEADLINE = 300    # s for one marked `slow` or `lab`


def pytest_configure(config):
    """A run in the background (`make test &`, CI) ignores SIGINT, and every program that a test starts would inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item):
    """Skips or fails a lab test on a machine that cannot have a lab."""
    if item.get_closest_marker("lab"):
        from tests.lab import unavailable
        reason = unavailable()
        if reason:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def deadline_of(item):
    """The seconds that a test may take."""
    return SLOW_DEADLINE if item.get_closest_marker("slow") or item.get_closest_marker("lab") else DEADLINE


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """Ends a test that hangs; the traceback shows where it was."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    seconds = deadline_of(item)

    def too_long(signum, frame):
        pytest.fail(f"hung: not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def room(request, tmp_path):
    """Two nodes (or as many as the test's parameter says) that run applications together."""
    from tests.room import Room
    made = Room(tmp_path, getattr(request, "param", 2))
    yield made
    made.close()
