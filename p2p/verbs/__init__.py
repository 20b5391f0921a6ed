"""The verbs: one table for the one-shot command, the shell, `help` and completion."""
