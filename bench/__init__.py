"""Measurements: each figure in the documents names the command here that made it."""
