"""
Moves DNS messages: clients in the shape of txdnspython's.

Knows no cache, no retry and no meaning of an answer. What txdnspython (2011) lacked and these have: a port and a
message id of its own for each query (RFC 5452), an error where TCP does not connect, time-outs on every wait, and
answers that do not match their question left aside instead of believed.
"""

from __future__ import annotations

from typing import TypeVar

import dns.asyncquery
import dns.message
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTCP, IReactorTime

from smtpreuse.dns.backend import TwistedBackend
from smtpreuse.model.nexthop import Endpoint

T = TypeVar("T")

# Seconds that TCP is given when UDP used up the time of the try.
_LEAST_TCP = 1.0


class _DnsClient:
    """What the two clients share: where to send, and the queries under way."""

    def __init__(
        self,
        reactor: IReactorTCP,
        address: str,
        port: int = 53,
        one_rr_per_rrset: bool = False,
        source: str = "",
        source_port: int = 0,
    ) -> None:
        """
        @param reactor: one that does TCP, descriptors and time.
        @param address: the server's, IPv4 or IPv6.
        @param one_rr_per_rrset: whether each record of an answer is to be an RRset of its own.
        @param source: our address, empty for any.
        @param source_port: 0 for one at random for each query, which is the safe choice.
        """
        self._backend = TwistedBackend(reactor)
        self._address = address
        self._port = port
        self._one_rr_per_rrset = one_rr_per_rrset
        self._source = source or None
        self._source_port = source_port
        self._under_way: set[Deferred[dns.message.Message]] = set()
        self._closed = False

    def send_query(self, query: dns.message.Message, timeout: float | None = None) -> Deferred[dns.message.Message]:
        """
        Ask, and give the answer.

        @param timeout: seconds; L{None} waits for ever.
        @return: errbacks with C{dns.exception.Timeout}; with L{OSError} or L{EOFError} when the server cannot be
            reached; with C{dns.exception.DNSException} when the answer is useless, C{dns.message.Truncated} (UDP only)
            when it is to be asked for over TCP; with C{CancelledError} when the client was closed.
        """
        answer: Deferred[dns.message.Message] = Deferred.fromCoroutine(self._exchanged(query, timeout))
        if not answer.called:
            self._under_way.add(answer)
            answer.addBoth(self._ended, answer)
        return answer

    def _ended(self, result: T, answer: Deferred[dns.message.Message]) -> T:
        self._under_way.discard(answer)
        return result

    async def _exchanged(self, query: dns.message.Message, timeout: float | None) -> dns.message.Message:
        if self._closed:
            raise CancelledError("the DNS client is closed")
        return await self._exchange(query, timeout)

    async def _exchange(self, query: dns.message.Message, timeout: float | None) -> dns.message.Message:
        raise NotImplementedError

    def close(self) -> None:
        """Cancel what is under way; nothing can be asked any more."""
        self._closed = True
        for answer in list(self._under_way):
            answer.cancel()


class UdpDnsClient(_DnsClient):
    """Asks one server over UDP; what is no answer to the question is ignored until the time is over."""

    async def _exchange(self, query: dns.message.Message, timeout: float | None) -> dns.message.Message:
        return await dns.asyncquery.udp(
            query, self._address, timeout, self._port, self._source, self._source_port,
            ignore_unexpected=True, one_rr_per_rrset=self._one_rr_per_rrset, raise_on_truncation=True,
            backend=self._backend, ignore_errors=True,
        )


class TcpDnsClient(_DnsClient):
    """Asks one server over TCP, each query on a connection of its own: they are rare, and one cannot stall another."""

    async def _exchange(self, query: dns.message.Message, timeout: float | None) -> dns.message.Message:
        return await dns.asyncquery.tcp(
            query, self._address, timeout, self._port, self._source, self._source_port,
            one_rr_per_rrset=self._one_rr_per_rrset, backend=self._backend,
        )


class Exchange:
    """One question to one server: over UDP, and over TCP when the answer was truncated."""

    def __init__(self, reactor: IReactorTCP) -> None:
        """
        @param reactor: one that does TCP, descriptors and time.
        """
        self._reactor = reactor
        self._clock = IReactorTime(reactor)

    async def ask(self, query: dns.message.QueryMessage, server: Endpoint, timeout: float) -> dns.message.Message:
        """
        @param timeout: seconds for both together.
        @raise dns.exception.Timeout: when no answer came in time.
        @raise dns.exception.DNSException: when the answer is useless.
        @raise OSError: when the server cannot be reached.
        @raise EOFError: when it closed its connection too early.
        """
        began = self._clock.seconds()
        try:
            return await UdpDnsClient(self._reactor, server.address, server.port).send_query(query, timeout)
        except dns.message.Truncated:
            left = max(_LEAST_TCP, timeout - (self._clock.seconds() - began))
            return await TcpDnsClient(self._reactor, server.address, server.port).send_query(query, left)
