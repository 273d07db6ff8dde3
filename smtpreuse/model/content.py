"""
Where the content of a message is: header and body with CRLF line ends, without dot-stuffing, ending in CRLF.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class MemoryContent:
    """Content held in memory."""

    octets: bytes

    @property
    def size(self) -> int:
        """Octets."""
        return len(self.octets)


@frozen
class FileContent:
    """Content in a file of its own, below the queue directory."""

    path: str
    size: int


Content = MemoryContent | FileContent
