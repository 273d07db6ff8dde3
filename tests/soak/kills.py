"""
The service killed two hundred times.
"""

from __future__ import annotations

from tests.system import test_kill


class ManyKillsTests(test_kill.KillTests):
    """As in C{tests.system.test_kill}, ten times as long."""

    messages = 50_000
    kills = 200
    timeout = 1800
