"""The tests, as a package: `from tests.waiting import wait_until`, `from tests.lab import Lab`.

Being a package also puts the repository's folder on the path, so `import p2p` works however pytest is started.
"""
