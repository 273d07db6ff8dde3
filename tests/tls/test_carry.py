"""
Tests of L{smtpreuse.tls.carry}.
"""

from __future__ import annotations

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.nexthop import Endpoint
from smtpreuse.model.policy import Level, Policy
from smtpreuse.model.reuse import Needs, Plaintext, ReuseKey, SessionFacts
from smtpreuse.model.tlsfacts import TLSResult, TLSRole, TLSSettings
from smtpreuse.tls.carry import No, Reason, Yes, may_carry, worn_out
from smtpreuse.tls.verify import verify

NOW = 1_790_000_000.0
KEY = ReuseKey(
    service="smtp",
    source="",
    helo="mail.example.com",
    endpoint=Endpoint("192.0.2.1", 25),
    settings=TLSSettings(servername="mx.example.com"),
)
TLS = TLSResult(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256, chain=(b"leaf",))
FACTS = SessionFacts(
    host="mx.example.com",
    level=Level.MAY,
    tls=TLS,
    plaintext=None,
    reusable=True,
    capabilities=Capabilities(esmtp=True),
    uses=1,
    opened=NOW - 10,
    good_until=NOW + 290,
)
PLAIN = evolve(FACTS, tls=None, plaintext=Plaintext.NOT_OFFERED)
NEEDS = Needs(key=KEY, level=Level.MAY, size=4096)


class AnswerTests(SynchronousTestCase):
    """
    An answer is true or false, and a value.
    """

    def test_truth(self) -> None:
        """Yes is true, No is not, and says why."""
        self.assertTrue(Yes())
        self.assertFalse(No(Reason.KEY))
        self.assertEqual(No(Reason.KEY), No(Reason.KEY))
        self.assertNotEqual(No(Reason.KEY), No(Reason.SIZE))
        self.assertEqual(Yes(), Yes())


class MayCarryTests(SynchronousTestCase):
    """
    A session carries what it was opened for and what is weaker, within its limits.
    """

    def refused(self, reason: Reason, facts: SessionFacts, needs: Needs = NEEDS, **limits: int) -> None:
        """It is refused for this reason."""
        self.assertEqual(may_carry(KEY, facts, needs, NOW, **limits), No(reason))

    def carried(self, facts: SessionFacts, needs: Needs = NEEDS, **limits: int) -> None:
        """It is carried."""
        self.assertEqual(may_carry(KEY, facts, needs, NOW, **limits), Yes())

    def test_ordinary(self) -> None:
        """An ordinary request rides on an ordinary session, fresh or reused, with TLS or without."""
        for facts in (FACTS, PLAIN):
            self.carried(facts)
            self.carried(evolve(facts, uses=0))

    def test_other_key(self) -> None:
        """A session that was opened in another way carries nothing of ours."""
        self.refused(Reason.KEY, FACTS, evolve(NEEDS, key=evolve(KEY, helo="other.example.com")))
        self.carried(FACTS, evolve(NEEDS, key=evolve(KEY)))

    def test_plaintext_for_encrypt(self) -> None:
        """What must be encrypted never rides on plaintext, not even as its first request."""
        for plaintext in Plaintext:
            for uses in (0, 1):
                facts = evolve(PLAIN, plaintext=plaintext, uses=uses)
                self.assertFalse(may_carry(KEY, facts, evolve(NEEDS, level=Level.ENCRYPT), NOW))
        self.refused(Reason.LEVEL, PLAIN, evolve(NEEDS, level=Level.ENCRYPT))

    def test_stronger_session(self) -> None:
        """A session with TLS carries what need not be encrypted, whatever level it was opened under."""
        for level in Level:
            for asked in Level:
                self.carried(evolve(FACTS, level=level), evolve(NEEDS, level=asked))

    def test_single(self) -> None:
        """A plaintext fallback serves its one request; so does a session of a policy without reuse."""
        for facts in (
            evolve(PLAIN, plaintext=Plaintext.FAILED),
            evolve(PLAIN, plaintext=Plaintext.REFUSED),
            evolve(FACTS, reusable=False),
        ):
            self.carried(evolve(facts, uses=0))
            self.refused(Reason.SINGLE, facts)
        for plaintext in (Plaintext.NOT_OFFERED, Plaintext.NOT_WANTED):
            self.carried(evolve(PLAIN, plaintext=plaintext))

    def test_reuse_forbidden_by_request(self) -> None:
        """A request whose policy forbids reuse does not ride on a TLS session that served another, but on plaintext."""
        needs = evolve(NEEDS, connection_reuse=False)
        self.refused(Reason.REUSE, FACTS, needs)
        self.carried(evolve(FACTS, uses=0), needs)
        self.carried(PLAIN, needs)

    def test_age(self) -> None:
        """A session is good until its time, and not beyond."""
        self.carried(evolve(FACTS, good_until=NOW))
        self.refused(Reason.AGE, evolve(FACTS, good_until=NOW - 0.001))
        self.refused(Reason.AGE, evolve(FACTS, good_until=NOW - 0.001, uses=0))

    def test_most_uses(self) -> None:
        """A limit of N reuses allows N + 1 transactions; 0 is none."""
        self.carried(evolve(FACTS, uses=3), most_uses=3)
        self.refused(Reason.USES, evolve(FACTS, uses=4), most_uses=3)
        self.carried(evolve(FACTS, uses=1), most_uses=1)
        self.refused(Reason.USES, evolve(FACTS, uses=2), most_uses=1)
        self.carried(evolve(FACTS, uses=100_000), most_uses=0)
        self.carried(evolve(FACTS, uses=100_000))
        self.assertIsNone(worn_out(evolve(FACTS, uses=100_000), NOW))

    def test_size(self) -> None:
        """A message over the announced size does not go; no number means no limit."""
        for size, fits in ((4096, True), (4095, False), (0, True), (None, True)):
            facts = evolve(FACTS, capabilities=Capabilities(size=size))
            if fits:
                self.carried(facts)
            else:
                self.refused(Reason.SIZE, facts)

    def test_worn_out(self) -> None:
        """Uses, a single request and age wear a session out, for every request."""
        self.assertIsNone(worn_out(FACTS, NOW))
        self.assertEqual(worn_out(evolve(FACTS, uses=4), NOW, most_uses=3), Reason.USES)
        self.assertEqual(worn_out(evolve(FACTS, reusable=False), NOW), Reason.SINGLE)
        self.assertEqual(worn_out(FACTS, NOW + 1000), Reason.AGE)


_SETTINGS = st.builds(
    TLSSettings,
    role=st.sampled_from(TLSRole),
    protocols=st.sampled_from([">=TLSv1", ">=TLSv1.2"]),
    ciphers=st.sampled_from(["medium", "high"]),
    servername=st.sampled_from([None, "mx.example.com"]),
)
_KEYS = st.builds(
    ReuseKey,
    service=st.sampled_from(["smtp", "relay"]),
    source=st.sampled_from(["", "192.0.2.7"]),
    helo=st.sampled_from(["a.example.com", "b.example.com"]),
    endpoint=st.builds(Endpoint, st.sampled_from(["192.0.2.1", "2001:db8::1"]), st.sampled_from([25, 587])),
    settings=st.none() | _SETTINGS,
)
_TLS = st.builds(TLSResult, protocol=st.just("TLSv1.3"), chain=st.sampled_from([(), (b"leaf",), (b"leaf", b"ca")]))


@st.composite
def _facts(draw: st.DrawFn) -> SessionFacts:
    tls = draw(st.none() | _TLS)
    return SessionFacts(
        host="mx.example.com",
        level=draw(st.sampled_from(Level)),
        tls=tls,
        plaintext=None if tls else draw(st.sampled_from(Plaintext)),
        reusable=draw(st.booleans()),
        capabilities=Capabilities(size=draw(st.none() | st.integers(0, 5))),
        uses=draw(st.integers(0, 5)),
        opened=NOW - 10,
        good_until=NOW + draw(st.integers(-2, 5)),
    )


_NEEDS = st.builds(
    Needs, key=_KEYS, level=st.sampled_from(Level), size=st.integers(0, 6), connection_reuse=st.booleans()
)
_MOST = st.integers(0, 5)


class AnySessionTests(SynchronousTestCase):
    """
    What holds for every session and every request.
    """

    @given(_facts(), _NEEDS, _MOST)
    def test_never_weaker_than_fresh(self, facts: SessionFacts, needs: Needs, most: int) -> None:
        """Never Yes where a fresh handshake under the request's policy would have been refused."""
        if may_carry(needs.key, facts, needs, NOW, most_uses=most):
            policy = Policy(level=needs.level, connection_reuse=needs.connection_reuse)
            if facts.tls is None:
                self.assertLess(needs.level, Level.ENCRYPT)
            else:
                self.assertTrue(verify(facts.tls.chain, policy, ("mx.example.com",), NOW).matched)

    @given(_KEYS, _facts(), _NEEDS, _MOST)
    def test_monotone_in_level(self, key: ReuseKey, facts: SessionFacts, needs: Needs, most: int) -> None:
        """What may carry a stronger request may carry the same at a weaker level."""
        asked = [evolve(needs, level=level) for level in sorted(Level)]
        answers = [bool(may_carry(key, facts, one, NOW, most_uses=most)) for one in asked]
        self.assertEqual(answers, sorted(answers, reverse=True))

    @given(_KEYS, _KEYS, _facts(), _NEEDS)
    def test_keys(self, opened: ReuseKey, wanted: ReuseKey, facts: SessionFacts, needs: Needs) -> None:
        """Any one fact of the key that differs makes another key, which is never served; an equal one is found."""
        if may_carry(opened, facts, evolve(needs, key=wanted), NOW):
            self.assertEqual(opened, wanted)
        self.assertEqual(opened == wanted, repr(opened) == repr(wanted))
        if opened == wanted:
            self.assertEqual(hash(opened), hash(wanted))
            self.assertEqual({opened: 1}[wanted], 1)

    @given(_KEYS, _facts(), _NEEDS, _MOST)
    def test_worn_out_carries_nothing(self, key: ReuseKey, facts: SessionFacts, needs: Needs, most: int) -> None:
        """What is worn out carries nothing, and is never worn out again by being asked for less."""
        reason = worn_out(facts, NOW, most_uses=most)
        answer = may_carry(key, facts, needs, NOW, most_uses=most)
        if reason is not None:
            self.assertEqual(answer, No(reason))
        elif isinstance(answer, No):
            self.assertNotIn(answer.reason, (Reason.SINGLE, Reason.AGE, Reason.USES))

    @given(_facts(), _NEEDS, _MOST)
    def test_wearing(self, facts: SessionFacts, needs: Needs, most: int) -> None:
        """Neither use nor age makes a session good for more."""
        assume(not may_carry(needs.key, facts, needs, NOW, most_uses=most))
        self.assertFalse(may_carry(needs.key, evolve(facts, uses=facts.uses + 1), needs, NOW, most_uses=most))
        self.assertFalse(may_carry(needs.key, facts, needs, NOW + 1, most_uses=most))
