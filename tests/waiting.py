"""Waiting for a condition, with a deadline: what tests use where others would sleep.

A sleep is a guess that is too long on most machines and too short on the loaded one. Here the condition
itself is asked, often at first and then every 50 ms, and when the deadline passes the failure says what was
waited for and what was seen last.
"""
import time


def wait_until(condition, timeout=10.0, what="", detail=None):
    """The first true value of `condition()`; AssertionError when `timeout` seconds pass without one.

    `what` names the thing waited for; `detail()`, asked only at failure, adds what helps to see why.
    """
    deadline = time.monotonic() + timeout
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        left = deadline - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.05)
    message = f"waited {timeout} s in vain for {what or getattr(condition, '__name__', 'it')}; last seen: {value!r}"
    if detail is not None:
        message += f"\n{detail()}"
    raise AssertionError(message)
