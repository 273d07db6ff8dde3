"""
Which requests share a session, and which never do.
"""

from __future__ import annotations

from attrs import evolve

from smtpreuse.model.nexthop import Candidate
from smtpreuse.model.policy import Level, Policy
from smtpreuse.model.reuse import Plaintext
from smtpreuse.model.tlsfacts import TLSSettings
from tests.fakes import candidate
from tests.reuse.world import CONNECT_TIMEOUT, ReuseCase, with_size

ONE, OTHER = "ann@example.com", "bob@example.test"
STRICT = TLSSettings(protocols=">=TLSv1.3")


class PolicyTests(ReuseCase):
    """Two destinations at one address share what their policies let them share, and not more."""

    def policies(self, one: Policy, other: Policy, *, one_site: bool = True) -> None:
        """These are the policies of the two."""
        self.build()
        at = candidate("mx.example.com")
        self.router.routes = {
            "example.com": (evolve(at, policy=one),), "example.test": (evolve(at, policy=other),)
        }  # fmt: skip
        if one_site:
            self.router.sites = {"example.com": "mx.example.com", "example.test": "mx.example.com"}

    def share(self, one: Policy, other: Policy, *, tls: bool = True) -> list[bool]:
        """
        Whether the second rides on the first one's session: after a rest with the same and with another site, and
        from hand to hand.
        """
        found = []
        for one_site in (True, False):
            self.policies(one, other, one_site=one_site)
            self.network.tls = tls
            self.deliver(ONE)
            self.deliver(OTHER)
            found.append(self.connections() == 1)
        self.policies(one, other)
        self.network.tls = tls
        self.send(ONE)
        self.until(lambda: self.status("Q1") == ["sent"], 1.0)
        self.deliver(OTHER)
        return [*found, self.connections() == 1]

    def test_may_and_encrypt_share_what_is_encrypted(self) -> None:
        """In both directions, for the handshake would be the same."""
        may, encrypt = Policy(level=Level.MAY), Policy(level=Level.ENCRYPT)
        self.assertEqual(self.share(may, encrypt), [True] * 3)
        self.assertEqual(self.share(encrypt, may), [True] * 3)

    def test_encrypt_never_rides_on_plaintext(self) -> None:
        """What may be sent in plaintext, where the server has no TLS, opens no way for what may not."""
        may, encrypt = Policy(level=Level.MAY), Policy(level=Level.ENCRYPT)
        self.assertEqual(self.share(may, encrypt, tls=False), [True] * 3, "no connection but the first")
        self.assertEqual((self.status("Q1"), self.status("Q2")), (["sent"], ["deferred"]))
        self.assertEqual(self.arrived(), ["Q1"])
        self.assertEqual(self.share(may, may, tls=False), [True] * 3)

    def test_other_protocols_share_nothing(self) -> None:
        """A session that was made under weaker settings never carries what asks for stronger ones, nor the reverse."""
        usual, strict = Policy(level=Level.MAY), Policy(level=Level.MAY, settings=STRICT)
        self.assertEqual(self.share(usual, strict), [False] * 3)
        self.assertEqual(self.share(strict, usual), [False] * 3)
        self.assertEqual(self.share(strict, evolve(strict, level=Level.ENCRYPT)), [True] * 3)

    def test_none_shares_nothing_with_tls(self) -> None:
        """A destination for which TLS is not to be tried has sessions of its own."""
        none, may = Policy(level=Level.NONE), Policy(level=Level.MAY)
        self.assertEqual(self.share(none, may), [False] * 3)
        self.assertEqual(self.share(may, none), [False] * 3)
        self.assertEqual(self.share(none, none), [True] * 3)

    def test_policy_without_reuse(self) -> None:
        """It neither gives its session to another nor takes one from another; in plaintext it makes no difference."""
        usual, never = Policy(level=Level.MAY), Policy(level=Level.MAY, connection_reuse=False)
        self.assertEqual(self.share(usual, never), [False] * 3)
        self.assertEqual(self.share(never, usual), [False] * 3)
        self.assertEqual(self.share(usual, never, tls=False), [True] * 3)

    def test_plaintext_fallback_serves_one_request(self) -> None:
        """It ends with QUIT, and the next one has its own chance of TLS."""
        for why in (Plaintext.FAILED, Plaintext.REFUSED):
            self.build()
            self.network.plaintext = why
            self.send(ONE)
            self.send(ONE)
            self.wait()
            self.network.plaintext = None
            self.deliver(ONE)
            self.deliver(ONE)
            self.all_sent()
            self.assertEqual([len(server.contents) for server in self.network.servers], [1, 1, 2])
            for server in self.network.servers[:2]:
                self.assertEqual(server.commands[-1], "QUIT")

    def test_two_users_of_one_provider_share(self) -> None:
        """Many domains at one host do not cost a connection each: one after the other they ride on the same."""
        self.router.sites = {f"d{number}.test": "provider" for number in range(30)}
        self.router.routes = {f"d{number}.test": (candidate(),) for number in range(30)}
        for number in range(30):
            self.send(f"ann@d{number}.test")
        self.wait(5.0)
        self.all_sent()
        self.assertLessEqual(self.connections(), 5)


class SeveralHostsTests(ReuseCase):
    """A host that cannot be reached costs its time once, not for each message."""

    FIRST = candidate("mx1.example.com", "192.0.2.1", preference=10)
    SECOND = candidate("mx2.example.com", "192.0.2.2", preference=20)

    def hosts(self, *candidates: Candidate) -> None:
        """Those of example.com."""
        self.router.routes = {"example.com": candidates}

    def black_holed(self) -> None:
        """The first message finds the primary dead, and the secondary alive."""
        self.hosts(self.FIRST, self.SECOND)
        self.network.down = {"192.0.2.1"}
        self.send()
        self.wait(CONNECT_TIMEOUT + 1)
        self.assertEqual(self.status("Q1"), ["sent"])
        self.assertEqual(self.network.tried, ["mx1.example.com", "mx2.example.com"])
        self.network.tried.clear()

    def test_black_holed_primary_while_the_secondary_rests(self) -> None:
        """The session to the secondary serves what comes."""
        self.black_holed()
        for _ in range(5):
            self.deliver()
        self.all_sent()
        self.assertEqual((self.network.tried, self.connections()), ([], 1))

    def test_black_holed_primary_remembered(self) -> None:
        """When that session is gone the primary is still tried last, until its time is over and one probe goes."""
        self.black_holed()
        self.network.servers[0].says("421 4.4.2 idle")
        self.deliver()
        self.assertEqual(self.network.tried, ["mx2.example.com"])
        self.network.servers[1].says("421 4.4.2 idle")
        self.wait(60.0)
        self.network.tried.clear()
        self.network.down.clear()
        self.deliver()
        self.all_sent()
        self.assertEqual(self.network.tried, ["mx1.example.com"])

    def test_failed_connections_use_nothing_up(self) -> None:
        """However many connections failed, there is room for the next."""
        self.build(window=1)
        self.hosts(self.FIRST)
        self.network.down = {"192.0.2.1"}
        for _ in range(3):
            self.send()
        self.wait(10 * CONNECT_TIMEOUT)
        self.assertEqual({status for number in (1, 2, 3) for status in self.status(f"Q{number}")}, {"deferred"})
        self.network.down.clear()
        self.wait(700.0)
        self.assertEqual(self.spool.messages, {})

    def test_endpoints_take_turns(self) -> None:
        """Sessions to two hosts carry about the same number of messages: a slow host does not draw all mail."""
        self.hosts(self.FIRST, evolve(self.SECOND, preference=10))
        self.two_sessions()
        for _ in range(10):
            self.deliver()
        self.all_sent()
        self.assertEqual([len(server.contents) for server in self.network.servers], [6, 6])


class LimitTests(ReuseCase):
    """What a session is keeps with it through every rest."""

    def test_reuse_time_is_over_while_it_rests(self) -> None:
        """Its server sees QUIT, and the next message has another."""
        self.network.lifetime = 10.0
        self.deliver()
        self.wait(7.0)
        self.deliver()
        self.assertEqual(self.connections(), 1)
        self.wait(2.0)
        self.assertEqual(self.network.servers[0].commands[-1], "QUIT", "a rest does not make it younger")
        self.deliver()
        self.all_sent()
        self.assertEqual(self.connections(), 2)

    def test_reuse_time_is_over_at_work(self) -> None:
        """The same where there is always something to carry."""
        self.network.lifetime = 3.0
        for _ in range(100):
            self.send()
            self.wait(0.1)
        self.wait()
        self.all_sent()
        first, *others = self.network.servers
        self.assertTrue(2 <= len(others) <= 4, others)
        self.assertTrue(25 <= len(first.contents) <= 32, first.contents)
        self.assertEqual(first.commands[-1], "QUIT")

    def test_reuse_count(self) -> None:
        """A limit of N reuses gives N + 1 transactions, whether they follow each other at once or after a rest."""
        self.build(most_reuses=2)
        for _ in range(4):
            self.deliver()
        self.send()
        self.send()
        self.wait()
        self.all_sent()
        self.assertEqual([len(server.contents) for server in self.network.servers], [3, 3])
        self.assertEqual([server.commands[-1] for server in self.network.servers], ["QUIT", "QUIT"])

    def test_size_is_remembered(self) -> None:
        """A message over what the server announced once is not given to the session, rested or not."""
        self.network.capabilities = with_size(1000)
        self.deliver()
        self.network.capabilities = with_size(0)
        self.deliver(size=1001)
        self.assertEqual(self.connections(), 2)
        self.deliver(size=1000)
        self.all_sent()
        self.assertEqual(self.connections(), 2)

    def test_tls_is_logged_at_every_reuse(self) -> None:
        """Once established, then reused: as many lines as there are transactions beyond the first of each session."""
        for _ in range(3):
            self.deliver()
        self.assertEqual(len(self.log.having("TLS connection established to")), 1)
        self.assertEqual(len(self.log.having("TLS connection reused to")), 2)
        self.assertEqual([f"conn_use={number}" in line for number, line in zip(
            (2, 3), self.log.having("status=sent")[1:], strict=True
        )], [True, True])  # fmt: skip

    def test_no_rset_between_clean_transactions(self) -> None:
        """No round trip is spent on looking whether the session still lives."""
        for _ in range(3):
            self.deliver()
        self.assertEqual(self.network.servers[0].commands, ["MAIL", "RCPT", "DATA", "."] * 3)
