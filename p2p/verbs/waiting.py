"""Waiting for the node to change: what verbs do that wait for others.

The node says only that something has changed; the verb looks again. So nothing is missed, however many changes
came while the verb was looking.
"""

from ..errors import TimedOut
from ..tasks import within


async def next_change(node, deadline):
    """Wait for a change; False if the deadline (the loop's clock, None: never) passed first."""
    if deadline is None:
        await node.changed.wait()
        return True
    left = deadline - node.loop.now()
    if left <= 0:
        return False
    try:
        await within(node.loop, node.changed.wait(), left)
    except TimedOut:
        return False
    return True
