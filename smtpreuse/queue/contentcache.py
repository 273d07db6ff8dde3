"""
Fresh content, kept in memory from its arrival to its first attempt, so that it need not be read back.

It holds octets by queue id and a sum; it knows nothing of the spool, where the same content is safe already.
"""

from __future__ import annotations


class ContentCache:
    """A bounded store: what came first goes first when it is full."""

    def __init__(self, limit: int) -> None:
        """
        @param limit: how many octets of content it may hold; 0 holds nothing.
        """
        self._limit = limit
        self._octets = 0
        self._contents: dict[str, bytes] = {}

    def adopt(self, limit: int) -> None:
        """Hold so many octets from now on; what came first goes first."""
        self._limit = limit
        self._shrink()

    @property
    def octets(self) -> int:
        """How many octets it holds now."""
        return self._octets

    def __len__(self) -> int:
        return len(self._contents)

    def put(self, queue_id: str, content: bytes) -> None:
        """Keep this content; the oldest goes where there is no room. What is larger than the limit is not kept."""
        self.drop(queue_id)
        if len(content) > self._limit:
            return
        self._contents[queue_id] = content
        self._octets += len(content)
        self._shrink()

    def get(self, queue_id: str) -> bytes | None:
        """
        Look content up; it stays.

        @return: L{None} when it is not here (any more).
        """
        return self._contents.get(queue_id)

    def take(self, queue_id: str) -> bytes | None:
        """
        Take content out.

        @return: L{None} when it is not here (any more).
        """
        content = self._contents.pop(queue_id, None)
        if content is not None:
            self._octets -= len(content)
        return content

    def _shrink(self) -> None:
        while self._octets > self._limit:
            self.drop(next(iter(self._contents)))

    def drop(self, queue_id: str) -> None:
        """Forget this content, if it is here."""
        self.take(queue_id)
