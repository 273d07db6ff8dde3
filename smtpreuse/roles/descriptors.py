"""
What descriptors this process has, and how many it may have.

Systems start processes with a soft limit of 1024 as a rule, for programs that use select(2); this one has a socket for
each session and each client, and reaches that number with the default of C{session_limit}.
"""

from __future__ import annotations

import os
import resource
import sys

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


def hold_standard_streams(output: int = os.O_WRONLY) -> None:
    """
    See to it that descriptors 0 to 2 are open. Where they are not the next socket or file gets such a number, and what
    is written to standard output goes to it.

    @param output: how to open what stands for standard output; C{os.O_RDONLY} lets writing fail.
    """
    for number, flags in enumerate((os.O_RDONLY, output, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The system gives the lowest number that is free.
            os.open(os.devnull, flags)
    if sys.stdout is None:
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)  # type: ignore[misc]  # for want of one
    if sys.stderr is None:
        # print() takes None for standard output.
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, closefd=False)  # type: ignore[misc]  # as above
