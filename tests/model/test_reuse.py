"""
Tests of L{smtpreuse.model.reuse}.
"""

from __future__ import annotations

from attrs import evolve, fields
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.nexthop import Candidate, Endpoint
from smtpreuse.model.policy import Level, Policy
from smtpreuse.model.reuse import Needs, Plaintext, Profile, ReuseKey, SessionFacts
from smtpreuse.model.tlsfacts import TLSSettings

KEY = ReuseKey(
    service="smtp", source="", helo="host.example.com", endpoint=Endpoint("192.0.2.1", 25), settings=TLSSettings()
)
FACTS = SessionFacts(
    host="mx.example.com", level=Level.MAY, tls=None, plaintext=None, reusable=True, capabilities=Capabilities(),
    uses=1, opened=1.0, good_until=2.0,
)  # fmt: skip


class KeyTests(SynchronousTestCase):
    """A key is every fact of how a session was opened."""

    def test_every_fact(self) -> None:
        """Changing any one of them makes another key, for the eye and for a dict."""
        others: dict[str, list[object]] = {
            "service": ["lmtp"],
            "source": ["192.0.2.7"],
            "helo": ["other.example.com"],
            "endpoint": [Endpoint("192.0.2.1", 26), Endpoint("192.0.2.2", 25)],
            "settings": [
                None, TLSSettings(servername="mx.example.com"), TLSSettings(ciphers="high"),
                TLSSettings(protocols=">=TLSv1.2"),
            ],
        }  # fmt: skip
        self.assertEqual(set(others), {field.name for field in fields(ReuseKey)})
        changed = [evolve(KEY, **{name: value}) for name, values in others.items() for value in values]
        self.assertEqual(len({KEY, *changed}), len(changed) + 1)

    def test_equal(self) -> None:
        """Keys of the same facts are one, whoever made them."""
        self.assertEqual({KEY: 1}[evolve(KEY, settings=TLSSettings(), endpoint=Endpoint("192.0.2.1", 25))], 1)


class ProfileTests(SynchronousTestCase):
    """Keys and needs are made in one place, of what a profile and a candidate say."""

    def candidate(self, level: Level, address: str = "192.0.2.1") -> Candidate:
        """A candidate at this level, whose handshake would name the host."""
        policy = Policy(level=level, connection_reuse=False, settings=TLSSettings(servername="mx.example.com"))
        return Candidate(endpoint=Endpoint(address, 25), host="mx.example.com", preference=10, policy=policy)

    def test_key(self) -> None:
        """The profile's names, the candidate's endpoint, and the settings of its policy."""
        profile = Profile(service="relay", helo="host.example.com", source="192.0.2.7", source6="2001:db8::7")
        settings = TLSSettings(servername="mx.example.com")
        for level in (Level.MAY, Level.ENCRYPT):
            self.assertEqual(
                profile.key(self.candidate(level)),
                ReuseKey(
                    service="relay", source="192.0.2.7", helo="host.example.com", endpoint=Endpoint("192.0.2.1", 25),
                    settings=settings,
                ),
            )  # fmt: skip

    def test_source(self) -> None:
        """Each family has its own source."""
        profile = Profile(helo="host.example.com", source="192.0.2.7", source6="2001:db8::7")
        self.assertEqual(profile.key(self.candidate(Level.MAY, "2001:db8::1")).source, "2001:db8::7")

    def test_no_tls(self) -> None:
        """Where TLS is not to be tried its settings make no difference."""
        key = Profile(helo="host.example.com").key(self.candidate(Level.NONE))
        self.assertEqual((key.settings, key.service, key.source), (None, "smtp", ""))

    def test_needs(self) -> None:
        """What a message asks is the key, and what its policy and size say."""
        profile = Profile(helo="host.example.com")
        candidate = self.candidate(Level.ENCRYPT)
        self.assertEqual(
            profile.needs(candidate, 4096),
            Needs(key=profile.key(candidate), level=Level.ENCRYPT, size=4096, connection_reuse=False),
        )


class SingleTests(SynchronousTestCase):
    """Some sessions serve their one request and end."""

    def test_fallback(self) -> None:
        """Plaintext after TLS was refused or failed."""
        self.assertTrue(evolve(FACTS, plaintext=Plaintext.REFUSED).single)
        self.assertTrue(evolve(FACTS, plaintext=Plaintext.FAILED).single)

    def test_forbidden(self) -> None:
        """A policy without reuse."""
        self.assertTrue(evolve(FACTS, reusable=False).single)
        self.assertTrue(evolve(FACTS, reusable=False, plaintext=Plaintext.NOT_OFFERED).single)

    def test_others(self) -> None:
        """All others may serve more."""
        self.assertFalse(FACTS.single)
        self.assertFalse(evolve(FACTS, plaintext=Plaintext.NOT_WANTED).single)
        self.assertFalse(evolve(FACTS, plaintext=Plaintext.NOT_OFFERED).single)
