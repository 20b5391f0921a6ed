"""The lab: several computers on one machine, each a network namespace, joined by a switch that tests control.

    with Lab(3) as lab:
        one, two, three = lab.hosts
        one.root(), two.root()
        two.unplug()

`bed` builds the network and takes it away, `host` is what a test does on one computer, `terminal` and `screen`
are a person's view of a program there. Tests that use it carry `pytest.mark.lab` (here also as `requires_lab`):
where namespaces cannot be made they are skipped with the reason, and fail instead in continuous integration
(CI=true), so that a green run cannot hide that they never ran.
"""
import pytest

from tests.lab.bed import Lab, unavailable

requires_lab = pytest.mark.lab

__all__ = ["Lab", "requires_lab", "unavailable"]
