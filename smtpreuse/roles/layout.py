"""
Which roles have processes of their own, and how many.

Three layouts have names. I{Single}: all in one process. I{Fast}: delivery in processes of its own, which hold their own
TLS, beside the main process with queue and intake. I{Isolated}: TLS in processes of its own too, and the sessions at
rest in another.
"""

from __future__ import annotations

import os

from attrs import frozen

from smtpreuse.config.settings import Settings

MAIN, SMTP, TLSPROXY, SCACHE = "main", "smtp", "tlsproxy", "scache"

@frozen(kw_only=True)
class Layout:
    """
    How many processes of each role there are; 0 for none of their own.
    """

    smtp: int
    tlsproxy: int
    scache: int

    @classmethod
    def of(cls, settings: Settings, cores: int | None = None) -> Layout:
        """
        What main.cf says; where it says C{auto}, what was measured to be best (C{bench/README.md}).

        @param cores: of this machine; looked up where it is not given.
        """
        if cores is None:
            cores = len(os.sched_getaffinity(0))
        smtp = settings.smtp_processes
        if smtp is None:
            smtp = 0 if cores < 2 else max(1, (cores - 1) // 2)
        tlsproxy = settings.tlsproxy_processes or 0
        if settings.scache_processes == "auto":
            scache = 1 if smtp > 1 or tlsproxy else 0
        else:
            scache = int(settings.scache_processes)
        return cls(smtp=smtp, tlsproxy=tlsproxy, scache=scache)

    def holds_tls(self, role: str) -> bool:
        """Whether a process of this role holds TLS state, and can say why a bridge to it ended."""
        return role == TLSPROXY or (role == SMTP and not self.tlsproxy)

    @property
    def name(self) -> str:
        """For people."""
        if self.tlsproxy:
            return "isolated"
        return "fast" if self.smtp else "single"

    @property
    def several(self) -> bool:
        """Whether there are any processes but the main one."""
        return bool(self.smtp or self.tlsproxy or self.scache)
