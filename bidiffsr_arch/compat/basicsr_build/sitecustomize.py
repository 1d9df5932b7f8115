"""Lets BasicSR 1.4.2 build on Python 3.13 and later; Python runs it at its start where this folder is on PYTHONPATH.

BasicSR's setup.py calls `exec` within a function and then looks in `locals()`, to which Python 3.13 no longer writes
(PEP 667). Here `exec`, called without namespaces, gets the caller's, as setup.py expects.
"""

import builtins
import sys
from typing import Any

_stock = builtins.exec


def _exec(source: Any, *namespaces: Any, **options: Any) -> None:
    if not namespaces and not {"globals", "locals"} & options.keys():
        caller = sys._getframe(1)
        namespaces = caller.f_globals, caller.f_locals
    _stock(source, *namespaces, **options)


builtins.exec = _exec
