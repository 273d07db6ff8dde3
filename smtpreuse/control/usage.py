"""
What this process uses. It keeps no history, and does not count mail: the dispatcher does.
"""

from __future__ import annotations

import os
import resource

from attrs import frozen


@frozen(kw_only=True)
class Usage:
    """
    @ivar rss: resident octets, or L{None} where the system does not tell.
    @ivar cpu: seconds of processor time, user and system.
    """

    rss: int | None
    cpu: float


def usage() -> Usage:
    """What this process uses now."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(rss=_resident(), cpu=spent.ru_utime + spent.ru_stime)


def usage_of(process: int) -> Usage:
    """What another process of this user uses now; of one that is gone, nothing."""
    return Usage(rss=_resident(f"/proc/{process}/statm"), cpu=_spent(f"/proc/{process}/stat"))


def _spent(path: str) -> float:
    try:
        with open(path) as stat:
            # Behind the name, which may have spaces in it; utime and stime of proc(5).
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(path: str = "/proc/self/statm") -> int | None:
    # getrusage knows the peak only.
    try:
        with open(path) as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return None
