"""
What a client sends, cut into command lines (RFC 5321 section 4.1.1), or taken as it is where it is content.

It does not know what a line says. A line ends with CRLF and with nothing else.
"""

from __future__ import annotations

# Postfix's line_length_limit; RFC 5321 section 4.5.3.1.4 has 512.
LINE_LIMIT = 2048

TOO_LONG = "line too long"
BARE_LF = "bare <LF> received"
BARE_CR = "bare <CR> received"
NUL = "NUL received"


class Lines:
    """The octets of one client that are not looked at yet."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._too_long = False

    def __len__(self) -> int:
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Take octets as they came."""
        if self._at < len(self._buffer):
            data = self._buffer[self._at :] + data
        self._buffer = data
        self._at = 0

    def next(self) -> bytes | str | None:
        """
        @return: the next line without its end; or what is wrong with it; or L{None}, while it is not whole.
        """
        begin, buffer = self._at, self._buffer
        end = buffer.find(b"\n", begin)
        if end < 0:
            self._bound()
            return None
        self._at = end + 1
        line = buffer[begin:end]
        if self._too_long or len(line) > LINE_LIMIT + 1:
            self._too_long = False
            return TOO_LONG
        if line[-1:] != b"\r":
            return BARE_LF
        if b"\0" in line:
            return NUL
        line = line[:-1]
        return BARE_CR if b"\r" in line else line

    def rest(self) -> bytes:
        """Take all that there is; what was not wanted of it is to be fed again."""
        rest = self._buffer[self._at :] if self._at else self._buffer
        self._buffer, self._at = b"", 0
        return rest

    def _bound(self) -> None:
        """Keep no more of a line without end than says that it is too long."""
        if len(self) > LINE_LIMIT + 1:
            self._too_long = True
        if self._too_long:
            self._buffer, self._at = b"", 0
