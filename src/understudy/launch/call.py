"""`python -m understudy.launch.call package.module:function '{"x": 1}'`: run an entrypoint."""

from __future__ import annotations

import importlib
import json
import sys


def call(entrypoint: str, arguments: str) -> None:
    """Import a function and call it with keyword arguments given as JSON."""
    module, _, function = entrypoint.partition(":")
    sys.path.insert(0, "")
    getattr(importlib.import_module(module), function)(**json.loads(arguments))


if __name__ == "__main__":
    call(*sys.argv[1:])
