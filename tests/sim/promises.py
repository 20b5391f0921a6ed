"""What is promised, in seconds, each derived from the product's limits.

AGREED: two nodes that can talk, and were not disturbed for this long, see each other alive, each over a link that is
ready. The longest way there: a stream that hangs is noticed (SILENCE), the dial that was under way gives up
(DIAL_TIMEOUT), the longest pause between two tries passes (REDIAL_LAST and its jitter of a half), and the next dial
may stand behind a silent address (DIAL_TIMEOUT once more).

MISSED: a node that has ended, without a word at worst, is alive in nobody's table any more.

OVER: a session is over at its host: everybody has answered or is taken to have answered, has fetched, started, ended by
itself (programs here live 121 s at most) or was missed.
"""

from p2p import limits
from p2p.membership import SUSPECT_FOR

AGREED = limits.SILENCE + limits.REDIAL_LAST * 1.5 + 2 * limits.DIAL_TIMEOUT + 4 * limits.TICK
MISSED = limits.SILENCE + SUSPECT_FOR + 4 * limits.TICK
LIVES = 1.1 + 90.0 + 30.0                  # s; program.py
FETCH = 60.0                               # s; with the files of host.py, over a bad network
OVER = limits.ASK_FOR + limits.ASK_GRACE + FETCH + LIVES + MISSED + 2 * limits.KILL_AFTER + AGREED
