"""
Streams whose TLS state is in another process, and whom to ask about it.

The end of such a stream may be the peer's end, or that of the other process. That one is asked; no answer is an answer.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smtpreuse.errors import LinkError
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import Link
from smtpreuse.ipc.stream import Adopter, StreamEnd, adopt_plaintext
from smtpreuse.ipc.verbs import WHY
from smtpreuse.model.reuse import Via

_GONE = "its TLS proxy is gone"


class Proxies:
    """The processes that hold TLS state for others, by process id, with a link to each."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}

    def met(self, process: int, link: Link) -> None:
        """There is one more."""
        self._links[process] = link
        link.when_lost(lambda: self._links.pop(process, None))

    async def why(self, via: Via) -> tuple[str, bool]:
        """
        Why a stream came to its end.

        @return: the reason, and whether it was our own doing.
        """
        link = self._links.get(via.process)
        try:
            reason = await link.ask(WHY, via.number) if link is not None else ""
        except LinkError:
            reason = ""
        return (reason, False) if reason else (_GONE, True)


class BridgedEnd(StreamEnd):
    """
    The plaintext end of a session whose TLS is elsewhere.
    """

    def __init__(self, via: Via, proxies: Proxies) -> None:
        super().__init__()
        self.via = self._through = via
        self._proxies = proxies

    def connectionLost(self, reason: Failure | None = None) -> None:  # Twisted's name
        """It is over: find out why."""
        if self.over:
            return
        self.lose()
        Deferred.fromCoroutine(self._proxies.why(self._through)).addCallback(lambda answer: self.finish(*answer))


def adopt(reactor: Adopter, descriptor: Descriptor, via: Via | None, proxies: Proxies) -> StreamEnd:
    """
    As L{adopt_plaintext}, for a session that may lead through another process.
    """
    make: Callable[[], StreamEnd] = StreamEnd if via is None else lambda: BridgedEnd(via, proxies)
    return adopt_plaintext(reactor, descriptor, make())
