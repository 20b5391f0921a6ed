"""What attacks get: `target`, a root that is looked at again after each test, whatever the attack was.

One lab serves all files, each file has a root of its own. After the test there must be the same process, with no more
memory and descriptors than allowed and no traceback in its log, and a friend must be served.
"""
import pytest

from tests.attacks.target import Target, three_hosts
from tests.waiting import wait_until


@pytest.fixture(scope="package")
def lab():
    """Three computers: the root's, the attacker's with many addresses, the friends'."""
    with three_hosts() as lab:
        yield lab


@pytest.fixture(scope="module")
def own_target(lab):
    """The root of this file's tests."""
    target = Target(lab)
    yield target
    target.root.close()


@pytest.fixture
def target(own_target):
    """It, looked at again after the test."""
    own_target.most_memory = own_target.most_descriptors = 0
    yield own_target
    own_target.check()


@pytest.fixture
def count(target):
    """`count(reason, n)` waits until that many more were refused for a reason since the test began."""
    before = target.refused()

    def wait(reason, number):
        wait_until(lambda: target.refused().get(reason, 0) - before.get(reason, 0) >= number, 15.0,
                   f"{number} refusals for {reason}", lambda: f"before {before}, now {target.refused()}")
    return wait
