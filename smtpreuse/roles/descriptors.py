"""
How many descriptors this process may have.

Systems start processes with a soft limit of 1024 as a rule, for programs that use select(2); this one has a socket for
each session and each client, and reaches that number with the default of C{session_limit}.
"""

from __future__ import annotations

import resource

# Clients, questions to name servers, content files, the tables.
_BESIDE_SESSIONS = 3000


def allow_sessions(sessions: int) -> int:
    """
    Raise the soft limit as far as so many sessions need and the hard one allows; it is never lowered.

    @return: the limit from now on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sessions + _BESIDE_SESSIONS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
