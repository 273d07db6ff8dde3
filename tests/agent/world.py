"""
What the tests of the agent share: a session to a scripted server, requests, limits.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from smtpreuse.agent.session import Limits, OpenSession, Session
from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.content import Content, MemoryContent
from smtpreuse.model.delivery import DeliveryRequest
from smtpreuse.model.message import Body, Recipient
from smtpreuse.model.nexthop import Candidate, Nexthop
from smtpreuse.model.reuse import Profile, SessionFacts
from smtpreuse.model.route import Route, Site
from smtpreuse.model.tlsfacts import TLSResult
from smtpreuse.smtp.client import Client, Verb
from tests.fakes import FakeEnd, candidate

T = TypeVar("T")

PROFILE = Profile(helo="client.example.com")
RELAY = "mx.example.com[192.0.2.1]"
# Each phase has a time-out of its own, so that a test sees which one it was.
TIMEOUTS = {
    Verb.GREETING: 31.0, Verb.EHLO: 32.0, Verb.HELO: 33.0, Verb.STARTTLS: 34.0, Verb.MAIL: 35.0, Verb.RCPT: 36.0,
    Verb.DATA: 37.0, Verb.CONTENT: 38.0, Verb.RSET: 20.0, Verb.QUIT: 39.0,
}  # fmt: skip
BODY_TIMEOUT = 40.0
PIPELINING = Capabilities(esmtp=True, pipelining=True, eight_bit=True, size=0)
PLAIN = Capabilities(esmtp=True)
TLS = TLSResult(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256, chain=(b"certificate",))
CONTENT = MemoryContent(b"Subject: hello\r\n\r\nhello\r\n")


def limits(*, whole: bool = False) -> Limits:
    """Time-outs of every phase."""
    return Limits(replies=TIMEOUTS, body=BODY_TIMEOUT, whole=whole)


def started(coroutine: Coroutine[Deferred[object], object, T]) -> Deferred[T]:
    """Begin it."""
    return Deferred.fromCoroutine(coroutine)


def facts(capabilities: Capabilities = PIPELINING, **values: object) -> SessionFacts:
    """What a fresh session in plaintext has."""
    plain = SessionFacts(
        host="mx.example.com", level=candidate().policy.level, tls=None, plaintext=None, reusable=True,
        capabilities=capabilities, uses=0, opened=0.0, good_until=1e9,
    )  # fmt: skip
    return evolve(plain, **values)


def open_session(
    end: FakeEnd, clock: Clock, *, capabilities: Capabilities = PIPELINING, uses: int = 0, whole: bool = False,
    at: Candidate | None = None, **values: object,
) -> OpenSession:  # fmt: skip
    """A session that is ready for transactions and has had so many."""
    where = at or candidate()
    session = Session(end, Client.activated(), clock, limits(whole=whole), RELAY)
    return OpenSession(session, where, PROFILE.key(where), facts(capabilities, uses=uses, **values))


def recipients(*names: str) -> tuple[Recipient, ...]:
    """Of these local parts."""
    return tuple(
        Recipient(row=row, address=f"{name}@example.com", hop="smtp:example.com")
        for row, name in enumerate(names, start=1)
    )


def route(*candidates: Candidate) -> Route:
    """To example.com."""
    return Route(
        nexthop=Nexthop(host="example.com"), site=Site(name="example.com"), candidates=candidates or (candidate(),),
        good_until=1e9,
    )  # fmt: skip


def request(*names: str, content: Content = CONTENT, ticket: int = 1, **values: object) -> DeliveryRequest:
    """A message to these local parts."""
    plain = DeliveryRequest(
        ticket=ticket, queue_id=f"QID{ticket}", sender="from@example.com", recipients=recipients(*(names or ("ann",))),
        size=content.size, body=Body.UNKNOWN, content=content, route=route(), arrived=0.0, activated=0.0,
    )  # fmt: skip
    return evolve(plain, **values)
