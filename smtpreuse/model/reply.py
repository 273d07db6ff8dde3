"""
The reply of an SMTP server (RFC 5321 section 4.2) and its enhanced status (RFC 2034, RFC 3463).
"""

from __future__ import annotations

import re

from attrs import frozen

_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?=\s|$)")
# RFC 5321 section 4.2.1 has no 500 class beyond these for syntax; 555 is RFC 5321 section 4.1.1.11.
_SYNTAX = frozenset(range(500, 510)) | {555}


@frozen
class Reply:
    """
    One complete reply.

    @ivar code: three digits, 200 to 599.
    @ivar lines: the text of each line without code and separator; at least one.
    """

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole reply as one line: the code, then the lines joined by a space."""
        return f"{self.code} {' '.join(self.lines)}".rstrip()

    @property
    def enhanced(self) -> str | None:
        """The enhanced status, when it directly follows the code and its class agrees with it; else L{None}."""
        match = _ENHANCED.match(self.lines[0])
        return match.group(0) if match and match.group(1) == str(self.code)[0] else None

    @property
    def status(self) -> str:
        """The enhanced status, or C{X.0.0} of the code's class."""
        return self.enhanced or f"{self.code // 100}.0.0"

    @property
    def positive(self) -> bool:
        """Whether the command was done (2xx)."""
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        """Whether the server waits for more (3xx)."""
        return 300 <= self.code < 400

    @property
    def temporary(self) -> bool:
        """Whether asking again later may help (4xx)."""
        return 400 <= self.code < 500

    @property
    def syntactic(self) -> bool:
        """Whether it complains of the grammar: a session where this happened is not kept."""
        return self.code in _SYNTAX

    @property
    def throttling(self) -> bool:
        """Whether it asks the client to slow down: 421, and 4xx with 4.7.x, 4.3.2 or 4.4.5."""
        if self.code == 421:
            return True
        enhanced = self.enhanced or ""
        return self.temporary and (enhanced.startswith("4.7.") or enhanced in ("4.3.2", "4.4.5"))
