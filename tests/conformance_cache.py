"""
What every body of L{IConnectionCache} promises.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpreuse.errors import SessionLost
from smtpreuse.interfaces import IConnectionCache, IStreamEnd, IStreamReceiver
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.nexthop import Endpoint
from smtpreuse.model.policy import Level
from smtpreuse.model.reuse import Needs, ReuseKey, SessionFacts
from smtpreuse.model.route import Site
from smtpreuse.model.tlsfacts import TLSResult, TLSSettings

T = TypeVar("T")
SITE = Site(name="mx.example.com")
START = 1_790_000_000.0


@implementer(IStreamEnd)
class FakeEnd:
    """
    A stream end without a stream.
    """

    full = False
    via = None

    def __init__(self) -> None:
        self.written = b""
        self.calls: list[str] = []
        self.early = b""
        self.reason: str | None = None
        self._receiver: IStreamReceiver | None = None

    def attach(self, receiver: IStreamReceiver) -> None:
        self._receiver = receiver
        early, self.early = self.early, b""
        if early:
            receiver.received(early)
        if self.reason is not None:
            receiver.ended(self.reason)

    def write(self, data: bytes) -> None:
        assert not self.calls, "nothing is written behind the end"
        self.written += data

    def pause(self) -> None:
        raise AssertionError("a session at rest is read from")

    def resume(self) -> None:
        raise AssertionError("a session at rest is read from")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")
        self.reason = "aborted"

    def detach(self) -> Descriptor:
        raise SessionLost("there is nothing to give away")

    def say(self, data: bytes) -> None:
        """The server says something."""
        assert self._receiver is not None
        self._receiver.received(data)

    def end(self, reason: str = "connection closed") -> None:
        """The server ends."""
        assert self._receiver is not None
        self.reason = reason
        self._receiver.ended(reason)

    def drain(self) -> None:
        """The buffers are empty."""
        assert self._receiver is not None
        self._receiver.drained()


def key(address: str = "192.0.2.1", **changes: object) -> ReuseKey:
    """How a session toward this address is opened."""
    whole = ReuseKey(
        service="smtp", source="", helo="mail.example.com", endpoint=Endpoint(address, 25), settings=TLSSettings()
    )
    return evolve(whole, **changes)


def facts(**changes: object) -> SessionFacts:
    """What a good session proved, after one transaction."""
    whole = SessionFacts(
        host="mx.example.com",
        level=Level.MAY,
        tls=TLSResult(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256, chain=(b"leaf",)),
        plaintext=None,
        reusable=True,
        capabilities=Capabilities(esmtp=True, size=10_000),
        uses=1,
        opened=START,
        good_until=START + 300,
    )
    return evolve(whole, **changes)


def needs(wanted: ReuseKey | None = None, **changes: object) -> Needs:
    """What an ordinary request asks for."""
    return evolve(Needs(key=wanted or key(), level=Level.MAY, size=100), **changes)


class ConnectionCacheContract(SynchronousTestCase):
    """
    To be inherited by the tests of a body.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.cache = self.made(idle_limit=15.0, limit=100, limit_per_key=20)

    def made(self, **values: float) -> IConnectionCache:
        """A cache on C{self.clock} with these values: C{idle_limit, limit, limit_per_key, most_uses}."""
        raise NotImplementedError

    def now(self, coroutine: Coroutine[Deferred[object], object, T]) -> T:
        """The result, which must be there at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def save(self, destination: str = "example.com", site: Site = SITE, **values: object) -> FakeEnd:
        """Save a session: C{of} is its key, C{proved} its facts."""
        end = FakeEnd()
        proved = values.pop("proved", None) or facts()
        self.now(self.cache.save(destination, site, values.pop("of", None) or key(), proved, end))
        return end

    def found(self, wanted: Needs | None = None) -> IStreamEnd | None:
        """Find by endpoint."""
        found = self.now(self.cache.find_endpoint(wanted or needs()))
        return None if found is None else found[2]

    def found_by_destination(self, *wanted: Needs, destination: str = "example.com") -> IStreamEnd | None:
        """Find by destination."""
        found = self.now(self.cache.find_destination(destination, wanted or (needs(),)))
        return None if found is None else found[2]

    def assertQuit(self, end: FakeEnd) -> None:
        """It was ended politely."""
        self.assertEqual((end.written, end.calls), (b"QUIT\r\n", ["close"]))

    def assertResting(self, end: FakeEnd) -> None:
        """Nothing was done to it."""
        self.assertEqual((end.written, end.calls), (b"", []))

    def test_interface(self) -> None:
        """It provides the seam."""
        self.assertTrue(verifyObject(IConnectionCache, self.cache))

    def test_found_by_endpoint(self) -> None:
        """What was saved under a key is found under the same key, with what was saved, once."""
        end, proved = FakeEnd(), facts(uses=7)
        self.now(self.cache.save("example.com", SITE, key(), proved, end))
        self.assertEqual(self.now(self.cache.find_endpoint(needs(key()))), (key(), proved, end))
        self.assertIsNone(self.found())
        self.assertResting(end)

    def test_found_by_destination(self) -> None:
        """What served a destination is found under it, for a need of its key, once."""
        end = self.save()
        self.assertIsNone(self.found_by_destination(needs(key("192.0.2.9"))))
        self.assertIsNone(self.found_by_destination(destination="example.test"))
        self.assertIs(self.found_by_destination(needs(key("192.0.2.9")), needs()), end)
        self.assertIsNone(self.found_by_destination())
        self.assertIsNone(self.found())

    def test_shared_endpoint(self) -> None:
        """A session that served one destination serves another by endpoint, and then is known under both."""
        self.save()
        self.assertIsNotNone(self.found())
        self.save("example.test")
        self.assertIsNotNone(self.found_by_destination())
        self.save("example.test")
        self.assertIsNotNone(self.found_by_destination(destination="example.test"))

    def test_other_key(self) -> None:
        """A session is not found under a key that differs in one fact."""
        self.save()
        for changes in (
            {"service": "relay"},
            {"source": "192.0.2.77"},
            {"helo": "other.example.com"},
            {"endpoint": Endpoint("192.0.2.1", 587)},
            {"settings": None},
            {"settings": TLSSettings(servername="mx.example.com")},
            {"settings": TLSSettings(ciphers="high")},
            {"settings": TLSSettings(protocols=">=TLSv1.2")},
        ):
            other = needs(key(**changes))
            self.assertIsNone(self.found(other), changes)
            self.assertIsNone(self.found_by_destination(other), changes)
        self.assertEqual(self.cache.resting(None), 1)

    def test_unfit_request(self) -> None:
        """A session that may not carry this request stays for another."""
        end = self.save()
        self.assertIsNone(self.found(needs(size=10_001)))
        self.assertIsNone(self.found_by_destination(needs(connection_reuse=False)))
        self.assertIs(self.found(), end)

    def test_fit_session_behind_unfit(self) -> None:
        """One unfit session does not hide another that fits."""
        fit = self.save(proved=facts(capabilities=Capabilities(size=50_000)))
        self.save()
        self.assertIs(self.found(needs(size=20_000)), fit)

    def test_last_saved_first(self) -> None:
        """Of equal sessions the last one saved is taken, so that the others come to their end."""
        first, second, third = self.save(), self.save(), self.save()
        self.assertEqual([self.found(), self.found(), self.found()], [third, second, first])

    def test_endpoints_take_turns(self) -> None:
        """Of a destination's endpoints the one used least recently is taken, however long its sessions are out."""
        keys = [key(f"192.0.2.{number}") for number in (1, 2, 3)]
        wanted = [needs(one) for one in keys]
        for one in keys:
            self.save(of=one)
        taken = []
        for _ in range(6):
            found = self.now(self.cache.find_destination("example.com", wanted))
            assert found is not None
            taken.append(keys.index(found[0]))
            self.save(of=found[0])
        self.assertEqual(taken, [0, 1, 2, 0, 1, 2])

    def test_expiry(self) -> None:
        """A session that rested for its time is told QUIT, and is not found any more."""
        end = self.save()
        self.clock.advance(14.5)
        self.assertResting(end)
        self.clock.advance(1.0)
        self.assertQuit(end)
        self.assertIsNone(self.found())
        self.assertIsNone(self.found_by_destination())
        self.assertEqual(self.cache.resting(None), 0)

    def test_good_until(self) -> None:
        """A session whose own time ends sooner ends then, also when another one's timer was set before."""
        later = self.save()
        sooner = self.save(proved=facts(good_until=START + 5))
        self.clock.advance(5.5)
        self.assertQuit(sooner)
        self.assertResting(later)
        self.clock.advance(10)
        self.assertQuit(later)

    def test_saved_anew(self) -> None:
        """Each time it is saved a session has its whole time again."""
        self.save()
        self.clock.advance(14)
        self.assertIsNotNone(self.found())
        end = self.save()
        self.clock.advance(14)
        self.assertResting(end)
        self.assertIs(self.found_by_destination(), end)

    def test_no_timer_left(self) -> None:
        """When nothing rests any more, nothing is waited for."""
        for number in range(5):
            self.save(f"{number}.example.com")
            self.clock.advance(3)
        self.clock.advance(31)
        self.clock.advance(31)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_by_server(self) -> None:
        """A session whose server closed is dropped on sight."""
        end = self.save()
        end.end()
        self.assertIsNone(self.found())
        self.assertEqual(self.cache.resting(None), 0)
        self.clock.advance(40)
        self.assertEqual(end.written, b"")

    def test_octets_at_rest(self) -> None:
        """A session on which anything arrives is dropped, without a word: no reply is due there."""
        for said in (b"421 4.4.2 too idle\r\n", b"\0", b"250 a reply too many\r\n"):
            end = self.save()
            end.say(said)
            end.say(b"more")
            end.end()
            self.assertEqual((end.written, end.calls), (b"", ["close"]))
            self.assertIsNone(self.found())
            self.assertEqual(self.cache.resting(None), 0)

    def test_octets_before_save(self) -> None:
        """A session on which octets waited when it was saved does not rest."""
        end = FakeEnd()
        end.early = b"421 bye\r\n"
        self.now(self.cache.save("example.com", SITE, key(), facts(), end))
        self.assertEqual(end.calls, ["abort"])
        self.assertIsNone(self.found())

    def test_ended_before_save(self) -> None:
        """A session that has ended does not rest."""
        end = FakeEnd()
        end.reason = "connection closed"
        self.now(self.cache.save("example.com", SITE, key(), facts(), end))
        self.assertIsNone(self.found())
        self.assertEqual(self.cache.resting(None), 0)

    def test_octets_between_owners(self) -> None:
        """What arrives before the next owner listens is not taken for a reply: the session is over then."""
        end = self.save()
        self.assertIs(self.found(), end)
        end.say(b"421 bye\r\n")
        self.assertEqual(end.calls, ["abort"])

    def test_reply_to_quit(self) -> None:
        """The reply to QUIT, and the end behind it, are no news."""
        end = self.save()
        self.now(self.cache.drop(None, 0))
        end.say(b"221 bye\r\n")
        end.drain()
        end.end()
        self.assertQuit(end)

    def test_useless_session(self) -> None:
        """A session that carries nothing any more is told QUIT instead of being saved."""
        for proved in (
            facts(reusable=False),
            facts(good_until=START - 1),
            facts(good_until=START),
        ):
            self.assertQuit(self.save(proved=proved))
        self.assertEqual(self.cache.resting(None), 0)

    def test_most_uses(self) -> None:
        """A limit of N reuses gives N + 1 transactions."""
        self.cache = self.made(idle_limit=15.0, limit=100, limit_per_key=20, most_uses=2)
        self.assertResting(self.save(proved=facts(uses=2)))
        self.assertQuit(self.save(proved=facts(uses=3)))

    def test_limit_per_key(self) -> None:
        """Over the limit of a key the session whose end is the closest goes."""
        self.cache = self.made(idle_limit=15.0, limit=100, limit_per_key=2)
        other = self.save(of=key("192.0.2.2"))
        first = self.save()
        self.clock.advance(1)
        second = self.save()
        third = self.save()
        self.assertQuit(first)
        for end in (other, second, third):
            self.assertResting(end)
        self.assertQuit(self.save(proved=facts(good_until=START + 2)))
        self.assertResting(second)

    def test_limit(self) -> None:
        """Over the limit of all sessions the one whose end is the closest goes."""
        self.cache = self.made(idle_limit=15.0, limit=2, limit_per_key=20)
        ends = [self.save(of=key(f"192.0.2.{number}")) for number in range(1, 5)]
        for end in ends[:2]:
            self.assertQuit(end)
        for end in ends[2:]:
            self.assertResting(end)
        self.assertEqual(self.cache.resting(None), 2)

    def test_limit_of_nothing(self) -> None:
        """With a limit of 0 nothing rests."""
        self.cache = self.made(idle_limit=15.0, limit=0, limit_per_key=20)
        self.assertQuit(self.save())

    def test_drop(self) -> None:
        """Of a site, or of all, the least useful sessions are ended until so many are left."""
        other = Site(name="other.example.com")
        ends = [self.save(proved=facts(good_until=START + 10 - number)) for number in range(4)]
        stranger = self.save(site=other)
        self.assertEqual((self.cache.resting(SITE), self.cache.resting(other), self.cache.resting(None)), (4, 1, 5))
        self.now(self.cache.drop(SITE, 2))
        for end in (ends[2], ends[3]):
            self.assertQuit(end)
        for end in (ends[0], ends[1], stranger):
            self.assertResting(end)
        self.now(self.cache.drop(SITE, 2))
        self.assertEqual(self.cache.resting(SITE), 2)
        self.now(self.cache.drop(Site(name="unknown.example.com"), 0))
        self.now(self.cache.drop(None, 0))
        self.assertEqual((self.cache.resting(SITE), self.cache.resting(None)), (0, 0))
        self.assertQuit(stranger)

    def test_worn_out_on_the_way(self) -> None:
        """A look-up that is late ends what it finds past its time."""
        end = self.save()
        self.clock.rightNow += 20
        self.assertIsNone(self.found_by_destination())
        self.assertIsNone(self.found())
        self.clock.advance(0)
        self.assertQuit(end)
