"""
Foreign programs that tests speak with, and what happens where they are not there.
"""

from __future__ import annotations

import os
import shutil
from unittest import SkipTest

# Where Debian puts servers; not in the search path of an ordinary user.
_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def missing(what: str) -> Exception:
    """
    What to raise when a test cannot run here: a skip, or a failure where C{CI} is set.

    @param what: is missing.
    """
    reason = f"missing here: {what}"
    return AssertionError(reason) if os.environ.get("CI") else SkipTest(reason)


def program(name: str) -> str:
    """
    The path of a foreign program.

    @raise Exception: L{missing}, when it is not installed.
    """
    path = shutil.which(name, path=_PLACES)
    if path is None:
        raise missing(f"{name} (as root, tests/peers/install fetches it)")
    return path
