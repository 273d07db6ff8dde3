"""
Message content on the wire: dot-stuffing and the end of data (RFC 5321 section 4.5.2), both directions.

It does not know headers or sizes. The end of data is C{CRLF.CRLF} and nothing else: bare CR or LF around a dot must not
split one message into two (CVE-2023-51764), so content that has them goes on to its true end and is refused there.
"""

from __future__ import annotations

import re

_END = b"\r\n.\r\n"
# Longest first: what may be the beginning of the end of data is held back until more is known.
_BEGINNINGS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")
_OFFENCE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
_OFFENCES = {b"\r": "bare <CR>", b"\n": "bare <LF>", b"\0": "NUL"}


class ContentDecoder:
    """
    Takes what follows 354 and gives the content: dots off, end found.

    @ivar offence: the first thing in it that must not be there, C{bare <CR>}, C{bare <LF>} or C{NUL}; or L{None}.
    """

    def __init__(self) -> None:
        self.offence: str | None = None
        self._held = b""
        self._started = False
        self._skip = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """
        @return: the content that is certain now; and what follows the end of data, L{None} while that was not reached.
            After the end this must not be called again.
        """
        if not self._started and data:
            self._started = True
            if data[:1] == b".":
                # The CRLF of the DATA command begins the first line.
                data = b"\r\n" + data
                self._skip = 2
        elif self._held:
            data = self._held + data
            self._held = b""
        end = data.find(_END)
        if end >= 0:
            return self._decoded(data[: end + 2]), data[end + 5 :]
        if data.endswith(_BEGINNINGS):
            for beginning in _BEGINNINGS:
                if data.endswith(beginning):
                    self._held = beginning
                    data = data[: -len(beginning)]
                    break
        return self._decoded(data), None

    def _decoded(self, raw: bytes) -> bytes:
        """Take the dots off. No line end is cut at either side of C{raw}, and no dot from its line end."""
        if self.offence is None:
            lines = raw.count(b"\n")
            if lines != raw.count(b"\r") or lines != raw.count(b"\r\n") or b"\0" in raw:
                self._accuse(raw)
        if b"\r\n." in raw:
            raw = raw.replace(b"\r\n.", b"\r\n")
        if self._skip and raw:
            self._skip = 0
            return raw[2:]
        return raw

    def _accuse(self, raw: bytes) -> None:
        offence = _OFFENCE.search(raw)
        if offence is not None:
            self.offence = _OFFENCES[offence.group()]


def stuffed(octets: bytes) -> bytes:
    """
    @return: whole content ready for the wire: dots doubled, its last line ended, the end of data behind it.
    """
    if b"\r\n." in octets:
        octets = octets.replace(b"\r\n.", b"\r\n..")
    if octets[:1] == b".":
        octets = b"." + octets
    if octets and not octets.endswith(b"\r\n"):
        return octets + _END
    return octets + b".\r\n"


class Stuffer:
    """Does what L{stuffed} does to content that comes in parts, cut anywhere."""

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def feed(self, data: bytes) -> bytes:
        """
        @return: the same part, its dots doubled.
        """
        wire = data.replace(b"\r\n.", b"\r\n..") if b"\r\n." in data else data
        if data[:1] == b"." and self._tail == b"\r\n":
            wire = b"." + wire
        elif data[:2] == b"\n." and self._tail[-1:] == b"\r":
            wire = b"\n." + wire[1:]
        self._tail = (self._tail + data[-2:])[-2:]
        return wire

    def finish(self) -> bytes:
        """
        @return: what ends the content: CRLF where the last line has none, and the final dot.
        """
        return b".\r\n" if self._tail == b"\r\n" else _END


class LineBreaker:
    """
    Breaks long lines as Postfix's smtp(8) does: CRLF and a space behind every so many octets, whatever they are. It
    takes content in parts, cut anywhere, before its dots are doubled: what is added there does not count.
    """

    def __init__(self, limit: int) -> None:
        """
        @param limit: octets of a line without its end, the space that a broken line begins with among them; at least 2.
        """
        self._limit = limit
        # Each further line begins with a space.
        self._step = max(1, limit - 1)
        self._used = 0
        self._cr = b""

    def feed(self, data: bytes) -> bytes:
        """
        @return: what is certain now of this part and what was held back of those before.
        """
        if self._cr:
            data = self._cr + data
        # Whether this is the line's end or a part of it the next part says.
        self._cr = b"\r" if data[-1:] == b"\r" else b""
        lines = (data[:-1] if self._cr else data).split(b"\r\n")
        lines[0] = self._broken(lines[0])
        for at in range(1, len(lines)):
            self._used = 0
            lines[at] = self._broken(lines[at])
        return b"\r\n".join(lines)

    def finish(self) -> bytes:
        """
        @return: what was held back.
        """
        rest, self._cr = self._cr, b""
        return self._broken(rest)

    def whole(self, octets: bytes) -> bytes:
        """
        @return: all of it at once.
        """
        return self.feed(octets) + self.finish()

    def _broken(self, part: bytes) -> bytes:
        """Of one line."""
        room = self._limit - self._used
        if len(part) <= room:
            self._used += len(part)
            return part
        cuts = [part[:room], *(part[at : at + self._step] for at in range(room, len(part), self._step))]
        self._used = 1 + len(cuts[-1])
        return b"\r\n ".join(cuts)
