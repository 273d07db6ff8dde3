"""
Reads a server's octets into replies (RFC 5321 section 4.2).

It does not know which command a reply answers. Bare LF ends a line here as CRLF does, as in Postfix's smtp(8): a server
that is sloppy there cannot split anything. All else that is out of the grammar ends belief in the connection.
"""

from __future__ import annotations

from smtpreuse.model.reply import Reply

# Postfix's line_length_limit; RFC 5321 section 4.5.3.1.5 has 512.
LINE_LIMIT = 2048
# No real EHLO reply comes near; they keep a hostile server from filling memory.
LINES_LIMIT = 100
REPLY_LIMIT = 65536

_CODES = {b"%d" % code: code for code in range(200, 600)}


class ReplyParser:
    """
    Cuts a stream into replies.

    @ivar broken: why nothing of the stream is believed any more, or L{None}. Replies that were complete before the
        offence are returned; nothing is after it.
    """

    def __init__(self) -> None:
        self.broken: str | None = None
        self._rest = b""
        self._code = 0
        self._lines: list[str] = []
        self._octets = 0

    @property
    def pending(self) -> int:
        """Octets taken in that are not yet part of a complete reply."""
        return self._octets + len(self._rest)

    def feed(self, data: bytes) -> list[Reply]:
        """
        Take octets as they came.

        @return: the replies they complete, in order.
        """
        replies: list[Reply] = []
        if self.broken is not None:
            return replies
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = rest = lines.pop()
        for line in lines:
            if line[-1:] == b"\r":
                line = line[:-1]
            code = _CODES.get(line[:3])
            mark = line[3:4]
            if code is None or len(line) > LINE_LIMIT or (mark and mark not in b" -"):
                self._break(f"not a reply line: {line[:80]!r}")
                return replies
            if self._lines and not self._continues(code, len(line)):
                return replies
            text = line[4:].decode("utf-8", "replace")
            if mark == b"-":
                self._code = code
                self._lines.append(text)
                self._octets += len(line)
            elif self._lines:
                self._lines.append(text)
                replies.append(Reply(code, tuple(self._lines)))
                self._lines = []
                self._octets = 0
            else:
                replies.append(Reply(code, (text,)))
        if len(rest) > LINE_LIMIT and len(rest.removesuffix(b"\r")) > LINE_LIMIT:
            self._break(f"a reply line over {LINE_LIMIT} octets: {rest[:80]!r}")
        return replies

    def _continues(self, code: int, size: int) -> bool:
        """Whether a line may follow those of the reply under way."""
        if code != self._code:
            self._break(f"a reply that begins with {self._code} goes on with {code}")
        elif len(self._lines) >= LINES_LIMIT or self._octets + size > REPLY_LIMIT:
            self._break(f"a reply over {LINES_LIMIT} lines or {REPLY_LIMIT} octets")
        return self.broken is None

    def _break(self, reason: str) -> None:
        self.broken = reason
        self._rest = b""
        self._lines = []
        self._octets = 0
