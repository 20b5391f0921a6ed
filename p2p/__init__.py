"""p2pframe: programs that run on several computers at once.

What an application imports is listed here and loaded when it is first used, so that `import p2p` costs nothing and
`p2pframe.py --version` does not load what it does not need. Everything else in this package starts with no promise.
"""

__version__ = "0.1.0"

_HOMES = {
    "attach": "app", "App": "app", "Peer": "app",
    "Message": "message", "Join": "message", "Leave": "message", "Line": "message", "Eof": "message",
    "Change": "message", "Gone": "message", "Timeout": "message",
    "UserError": "errors", "TaskFailed": "farming",
    "clean": "text",
}
__all__ = ["__version__", "App", "Change", "Eof", "Gone", "Join", "Leave", "Line", "Message", "Peer", "TaskFailed", "Timeout", "UserError",
           "attach", "clean"]


def __getattr__(name):
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'p2p' has no attribute {name!r}")
    from importlib import import_module
    value = globals()[name] = getattr(import_module("." + home, __name__), name)
    return value
