"""The table: every verb there is, in the order in which `help` shows them.

It is the one place that knows all modules of verbs; they know nothing of each other. Importing it costs what their
declarations cost, since handlers import what is heavy only when they run: the command line reads it before it knows
whether there will be a root at all.
"""

from . import attaching, files, networks, people, running, watching

VERBS = {verb.name: verb for verb in (
    *watching.START, *people.VERBS, *networks.VERBS, *files.VERBS, *running.VERBS, *attaching.VERBS, *watching.VERBS)}
