"""
Tests of L{smtpreuse.dns.resolver}.
"""

from __future__ import annotations

from collections.abc import Callable

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from smtpreuse.dns.resolver import Resolver, servers_from
from smtpreuse.dns.transport import Exchange
from smtpreuse.errors import DNSError, NoSuchName, NoSuchRecords
from smtpreuse.interfaces import IResolver
from smtpreuse.model.nexthop import Endpoint
from smtpreuse.model.records import AddressAnswer, MXAnswer, MXRecord
from tests.dns.nameserver import NameServer, answered, truncated

NEAR, FAR = Endpoint("127.0.0.1", 53), Endpoint("192.0.2.53", 53)
SOA = "!example.com. 900 IN SOA ns.example.com. root.example.com. 1 3600 600 86400 120"
Reaction = Callable[[dns.message.QueryMessage], dns.message.Message | Exception]


class _Servers:
    """Servers that react as a test wants, and note who was asked what and how long one would have waited."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.reactions: dict[Endpoint, Reaction] = {}
        self.asked: list[tuple[Endpoint, dns.message.QueryMessage, float]] = []
        self.gate: Deferred[None] | None = None

    async def ask(self, query: dns.message.QueryMessage, server: Endpoint, timeout: float) -> dns.message.Message:
        """Stands for the exchange; a time-out takes its time on the clock."""
        self.asked.append((server, query, timeout))
        if self.gate is not None:
            await self.gate
        reaction = self.reactions[server](query)
        if isinstance(reaction, dns.exception.Timeout):
            self.clock.advance(timeout)
        if isinstance(reaction, Exception):
            raise reaction
        return reaction


def says(*records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, ad: bool = False) -> Reaction:
    """A server that answers everything with these records."""

    def react(query: dns.message.QueryMessage) -> dns.message.Message:
        answer = answered(query, *records, rcode=rcode)
        if ad:
            answer.flags |= dns.flags.AD
        return answer

    return react


def fails(error: Exception) -> Reaction:
    """A server that cannot be asked."""
    return lambda query: error


class _Asked(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.servers = _Servers(self.clock)
        self.resolver = self.of(NEAR)

    def of(self, *servers: Endpoint, dnssec: bool = False) -> Resolver:
        """A resolver that asks these."""
        return Resolver(self.clock.seconds, self.servers.ask, servers, dnssec=dnssec)

    def mx(self, domain: str = "example.com") -> Deferred[MXAnswer]:
        """Ask for MX records."""
        return Deferred.fromCoroutine(self.resolver.mx(domain))

    def addresses(self, host: str = "mail.example.com", ipv6: bool = False) -> Deferred[AddressAnswer]:
        """Ask for addresses."""
        return Deferred.fromCoroutine(self.resolver.addresses(host, ipv6))

    def temporary(self, asked: Deferred[AddressAnswer] | Deferred[MXAnswer]) -> str:
        """The text of a temporary error."""
        error = self.failureResultOf(asked, DNSError).value
        self.assertIs(type(error), DNSError)
        self.assertTrue(error.temporary)
        return str(error)


class AnswerTests(_Asked):
    """What servers answer becomes values."""

    def test_seam(self) -> None:
        """It stands behind the seam."""
        self.assertTrue(verifyObject(IResolver, self.resolver))

    def test_mx(self) -> None:
        """MX records come with preference and host, in lower case without the final dot, until their TTL."""
        self.servers.reactions[NEAR] = says(
            "example.com. 300 IN MX 20 MX2.Example.com.", "example.com. 300 IN MX 10 mx1.example.com."
        )
        answer = self.successResultOf(self.mx("Example.COM"))
        self.assertEqual(
            sorted(answer.records, key=lambda record: record.preference),
            [MXRecord(10, "mx1.example.com"), MXRecord(20, "mx2.example.com")],
        )
        self.assertEqual(answer.good_until, 1300.0)
        self.assertFalse(answer.secure)

    def test_null_mx(self) -> None:
        """The root as mail host is an empty host."""
        self.servers.reactions[NEAR] = says("example.com. 300 IN MX 0 .")
        self.assertEqual(self.successResultOf(self.mx()).records, (MXRecord(0, ""),))

    def test_addresses(self) -> None:
        """Addresses come in canonical form, of the family asked for."""
        record = "mail.example.com. 60 IN A 192.0.2."
        self.servers.reactions[NEAR] = says(record + "1", record + "2")
        self.assertEqual(set(self.successResultOf(self.addresses()).addresses), {"192.0.2.1", "192.0.2.2"})
        self.servers.reactions[NEAR] = says("mail.example.com. 60 IN AAAA 2001:DB8:0:0::1")
        self.assertEqual(self.successResultOf(self.addresses(ipv6=True)).addresses, ("2001:db8::1",))

    def test_query(self) -> None:
        """The question asks for recursion, offers 1,232 octets, and asks for proofs only where they count."""
        self.servers.reactions[NEAR] = says("mail.example.com. 60 IN A 192.0.2.1")
        self.successResultOf(self.addresses())
        self.resolver = self.of(NEAR, dnssec=True)
        self.successResultOf(self.addresses())
        plain, proven = (query for _, query, _ in self.servers.asked)
        self.assertTrue(plain.flags & dns.flags.RD)
        self.assertEqual((plain.edns, plain.payload), (0, 1232))
        self.assertFalse(plain.ednsflags & dns.flags.DO)
        self.assertTrue(proven.ednsflags & dns.flags.DO)

    def test_no_such_name(self) -> None:
        """NXDOMAIN is final as long as the SOA record says."""
        self.servers.reactions[NEAR] = says(SOA, rcode=dns.rcode.NXDOMAIN)
        self.assertFalse(self.failureResultOf(self.addresses(), NoSuchName).value.temporary)
        self.assertEqual(len(self.servers.asked), 1)
        self.clock.advance(119.0)
        self.failureResultOf(self.addresses(), NoSuchName)
        self.assertEqual(len(self.servers.asked), 1)
        self.clock.advance(1.0)
        self.failureResultOf(self.addresses(), NoSuchName)
        self.assertEqual(len(self.servers.asked), 2)

    def test_gone_for_one_type(self) -> None:
        """NXDOMAIN for one type says nothing of the others, neither before them nor after (RFC 4074 section 4.2)."""

        def react(query: dns.message.QueryMessage) -> dns.message.Message:
            if query.question[0].rdtype == dns.rdatatype.A:
                return answered(query, "mail.example.com. 60 IN A 192.0.2.1")
            return answered(query, SOA, rcode=dns.rcode.NXDOMAIN)

        self.servers.reactions[NEAR] = react
        for _ in range(2):
            self.failureResultOf(self.mx("mail.example.com"), NoSuchName)
            self.failureResultOf(self.addresses(ipv6=True), NoSuchName)
            self.assertEqual(self.successResultOf(self.addresses()).addresses, ("192.0.2.1",))
        self.assertEqual(len(self.servers.asked), 3)

    def test_no_such_records(self) -> None:
        """NODATA is final for this type alone."""
        self.servers.reactions[NEAR] = says(SOA)
        self.assertFalse(self.failureResultOf(self.addresses(), NoSuchRecords).value.temporary)
        self.servers.reactions[NEAR] = says("mail.example.com. 60 IN AAAA 2001:db8::1")
        self.successResultOf(self.addresses(ipv6=True))

    def test_long_negative(self) -> None:
        """A negative answer is kept for an hour at most."""
        self.servers.reactions[NEAR] = says(SOA.replace(" 900 ", " 90000 ").replace(" 120", " 90000"))
        self.failureResultOf(self.addresses(), NoSuchRecords)
        self.clock.advance(3599.0)
        self.failureResultOf(self.addresses(), NoSuchRecords)
        self.assertEqual(len(self.servers.asked), 1)
        self.clock.advance(1.0)
        self.failureResultOf(self.addresses(), NoSuchRecords)
        self.assertEqual(len(self.servers.asked), 2)

    def test_ttl_bounds(self) -> None:
        """A TTL of 0 counts as five seconds, one of weeks as a day."""
        self.servers.reactions[NEAR] = says("mail.example.com. 0 IN A 192.0.2.1")
        self.assertEqual(self.successResultOf(self.addresses()).good_until, 1005.0)
        self.servers.reactions[NEAR] = says("example.com. 9999999 IN MX 1 mail.example.com.")
        self.assertEqual(self.successResultOf(self.mx()).good_until, 1000.0 + 86400.0)

    def test_no_domain(self) -> None:
        """What cannot be a name is no question, and a final error."""
        for text in ("a..b", "x" * 64 + ".example.com", "a\\"):
            error = self.failureResultOf(self.mx(text), DNSError).value
            self.assertFalse(error.temporary)
        self.assertEqual(self.servers.asked, [])

    def test_forget(self) -> None:
        """After forgetting, the servers are asked anew."""
        self.servers.reactions[NEAR] = says("mail.example.com. 60 IN A 192.0.2.1")
        self.successResultOf(self.addresses())
        self.resolver.forget()
        self.successResultOf(self.addresses())
        self.assertEqual(len(self.servers.asked), 2)


class AliasTests(_Asked):
    """Aliases are followed, not for ever."""

    def test_chain(self) -> None:
        """A chain within the answer is followed; the least TTL counts."""
        self.servers.reactions[NEAR] = says(
            "mail.example.com. 30 IN CNAME a.example.com.",
            "a.example.com. 300 IN CNAME b.example.com.",
            "b.example.com. 300 IN A 192.0.2.9",
        )
        answer = self.successResultOf(self.addresses())
        self.assertEqual((answer.addresses, answer.good_until), (("192.0.2.9",), 1030.0))

    def test_unasked_records(self) -> None:
        """Records of other names in the answer are not believed."""
        self.servers.reactions[NEAR] = says("other.example.com. 30 IN A 192.0.2.66", SOA)
        self.failureResultOf(self.addresses(), NoSuchRecords)

    def test_target_missing(self) -> None:
        """An alias that came without its target is asked for anew."""

        def react(query: dns.message.QueryMessage) -> dns.message.Message:
            if str(query.question[0].name) == "mail.example.com.":
                return answered(query, "mail.example.com. 30 IN CNAME a.example.com.")
            return answered(query, "a.example.com. 20 IN A 192.0.2.9")

        self.servers.reactions[NEAR] = react
        answer = self.successResultOf(self.addresses())
        self.assertEqual((answer.addresses, answer.good_until), (("192.0.2.9",), 1020.0))

    def test_dangling(self) -> None:
        """An alias to nothing is no record; an alias to a name that is not there is no name."""
        alias = "mail.example.com. 30 IN CNAME a.example.com."
        self.servers.reactions[NEAR] = says(alias, SOA)
        self.failureResultOf(self.addresses(), NoSuchRecords)
        self.servers.reactions[NEAR] = says(alias, SOA, rcode=dns.rcode.NXDOMAIN)
        self.failureResultOf(self.addresses(ipv6=True), NoSuchName)

    def test_loop_in_answer(self) -> None:
        """A loop within one answer ends as a temporary error."""
        self.servers.reactions[NEAR] = says(
            "mail.example.com. 30 IN CNAME a.example.com.", "a.example.com. 30 IN CNAME mail.example.com."
        )
        self.temporary(self.addresses())

    def test_endless(self) -> None:
        """A chain of answers that never ends is cut."""

        def react(query: dns.message.QueryMessage) -> dns.message.Message:
            name = query.question[0].name
            return answered(query, f"{name} 30 IN CNAME x{name}")

        self.servers.reactions[NEAR] = react
        self.assertIn("aliases", self.temporary(self.addresses()))
        self.assertEqual(len(self.servers.asked), 8)


class FailureTests(_Asked):
    """No server's failure is more than a temporary error, within a total time."""

    def test_timeouts(self) -> None:
        """A silent server is asked three times, ten seconds in all."""
        self.servers.reactions[NEAR] = fails(dns.exception.Timeout())
        self.assertIn("did not answer", self.temporary(self.addresses()))
        self.assertEqual([timeout for _, _, timeout in self.servers.asked], [2.0, 3.0, 5.0])
        self.assertEqual(self.clock.seconds(), 1010.0)

    def test_budget(self) -> None:
        """Many silent servers take no longer than one."""
        others = [Endpoint(f"192.0.2.{number}", 53) for number in range(1, 8)]
        self.servers.reactions = {other: fails(dns.exception.Timeout()) for other in others}
        self.resolver = self.of(*others)
        self.temporary(self.addresses())
        self.assertEqual(self.clock.seconds(), 1010.0)

    def test_fresh_ids(self) -> None:
        """Each try is a question of its own: a late answer to one tells nothing about the next."""
        self.servers.reactions[NEAR] = fails(dns.exception.Timeout())
        self.temporary(self.addresses())
        self.assertEqual(len({id(query) for _, query, _ in self.servers.asked}), 3)

    def test_second_server(self) -> None:
        """The next server is asked, and from then on before the silent one."""
        self.resolver = self.of(FAR, NEAR)
        self.servers.reactions[FAR] = fails(dns.exception.Timeout())
        self.servers.reactions[NEAR] = says("mail.example.com. 60 IN A 192.0.2.1")
        self.successResultOf(self.addresses())
        self.servers.asked.clear()
        self.servers.reactions[NEAR] = says("example.com. 60 IN MX 1 mail.example.com.")
        self.successResultOf(self.mx())
        self.assertEqual([server for server, _, _ in self.servers.asked], [NEAR])

    def test_codes(self) -> None:
        """SERVFAIL, REFUSED, FORMERR and NOTIMP are temporary; who said so is not asked the same again."""
        for rcode in (dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.FORMERR, dns.rcode.NOTIMP):
            self.resolver = self.of(NEAR, FAR)
            self.servers.asked.clear()
            self.servers.reactions = {NEAR: says(rcode=rcode), FAR: says(rcode=rcode)}
            self.assertIn(dns.rcode.to_text(rcode), self.temporary(self.addresses()))
            asked = [(server, query.edns) for server, query, _ in self.servers.asked]
            self.assertEqual([one for one in asked if one[1] == 0], [(NEAR, 0), (FAR, 0)])

    def test_without_edns(self) -> None:
        """A server that knows no EDNS is asked once more without it, in the time that was left (RFC 6891 section 7)."""

        def old(rcode: dns.rcode.Rcode) -> Reaction:
            def react(query: dns.message.QueryMessage) -> dns.message.Message:
                self.clock.advance(0.5)
                if query.edns >= 0:
                    return answered(query, rcode=rcode)
                return answered(query, "mail.example.com. 60 IN A 192.0.2.1")

            return react

        for rcode in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
            self.servers.reactions[NEAR] = old(rcode)
            self.resolver = self.of(NEAR, dnssec=True)
            self.servers.asked.clear()
            self.assertEqual(self.successResultOf(self.addresses()).addresses, ("192.0.2.1",))
            self.assertEqual([(query.edns, wait) for _, query, wait in self.servers.asked], [(0, 2.0), (-1, 1.5)])

    def test_useless(self) -> None:
        """So are garbage and closed connections, and servers that cannot be asked at all; each is called what it is."""
        for error, text in (
            (dns.exception.FormError(), "useless answer"),
            (EOFError("EOF"), "useless answer"),
            (ValueError("odd"), "useless answer"),
            (ConnectionRefusedError("port unreachable"), f"{NEAR} cannot be asked: port unreachable"),
            (OSError(24, "Too many open files"), f"{NEAR} cannot be asked: Too many open files"),
        ):
            self.resolver = self.of(NEAR, FAR)
            self.servers.reactions = {NEAR: fails(error), FAR: says("mail.example.com. 60 IN A 192.0.2.1")}
            self.assertEqual(self.successResultOf(self.addresses()).addresses, ("192.0.2.1",))
            self.resolver = self.of(NEAR)
            self.assertIn(f"({text}", self.temporary(self.addresses()).replace(f"{NEAR}: ", ""))

    def test_remembered(self) -> None:
        """A failure is remembered for five seconds, so that one dead domain does not cost ten per message."""
        self.servers.reactions[NEAR] = says(rcode=dns.rcode.SERVFAIL)
        self.temporary(self.addresses())
        self.clock.advance(4.9)
        self.temporary(self.addresses())
        self.assertEqual(len(self.servers.asked), 1)
        self.clock.advance(0.1)
        self.temporary(self.addresses())
        self.assertEqual(len(self.servers.asked), 2)

    def test_referral(self) -> None:
        """A server that only names others said nothing of the records: the next one is asked, and mail waits."""

        def refers(*records: str) -> Reaction:
            def react(query: dns.message.QueryMessage) -> dns.message.Message:
                answer = answered(query, *records)
                answer.flags &= ~(dns.flags.RA | dns.flags.AA)
                return answer

            return react

        for records in (["!com. 3600 IN NS a.gtld-servers.net."], []):
            self.resolver = self.of(FAR)
            self.servers.reactions[FAR] = refers(*records)
            self.assertIn(f"({FAR} answered with a referral)", self.temporary(self.addresses()))
            self.resolver = self.of(FAR, NEAR)
            self.servers.reactions[NEAR] = says("mail.example.com. 60 IN A 192.0.2.1")
            self.assertEqual(self.successResultOf(self.addresses()).addresses, ("192.0.2.1",))
        self.resolver = self.of(FAR)
        self.servers.reactions[FAR] = refers(SOA)
        self.failureResultOf(self.addresses(), NoSuchRecords)

    def test_no_servers(self) -> None:
        """Without a server there is no answer."""
        self.resolver = self.of()
        self.temporary(self.addresses())

    def test_answer_for_gone_name(self) -> None:
        """An answer that contradicts itself is useless."""
        self.servers.reactions[NEAR] = says("mail.example.com. 60 IN A 192.0.2.1", rcode=dns.rcode.NXDOMAIN)
        self.temporary(self.addresses())

    def test_in_flight_once(self) -> None:
        """Equal questions in flight are one; who gives up does not take the answer from the others."""
        self.servers.gate = gate = Deferred()
        self.servers.reactions[NEAR] = says("mail.example.com. 60 IN A 192.0.2.1")
        first, second = self.addresses(), self.addresses("MAIL.example.com.")
        self.assertEqual(len(self.servers.asked), 1)
        first.cancel()
        self.failureResultOf(first)
        gate.callback(None)
        self.assertEqual(self.successResultOf(second).addresses, ("192.0.2.1",))


class SecureTests(_Asked):
    """An answer is secure when a resolver on this host says so, and we asked."""

    def secure(self, server: Endpoint, dnssec: bool, ad: bool) -> bool:
        """Whether an answer counts as secure."""
        self.resolver = self.of(server, dnssec=dnssec)
        self.servers.reactions[server] = says("mail.example.com. 60 IN A 192.0.2.1", ad=ad)
        return self.successResultOf(self.addresses()).secure

    def test_all_of_it(self) -> None:
        """Only loopback, only with the AD bit, only when asked for."""
        self.assertTrue(self.secure(NEAR, True, True))
        self.assertTrue(self.secure(Endpoint("::1", 53), True, True))
        self.assertFalse(self.secure(NEAR, True, False))
        self.assertFalse(self.secure(NEAR, False, True))
        self.assertFalse(self.secure(FAR, True, True))

    def test_every_link(self) -> None:
        """Where an alias needed a second question, both answers must be secure."""

        def react(query: dns.message.QueryMessage) -> dns.message.Message:
            if str(query.question[0].name) == "mail.example.com.":
                return answered(query, "mail.example.com. 30 IN CNAME a.example.com.")
            answer = answered(query, "a.example.com. 20 IN A 192.0.2.9")
            answer.flags |= dns.flags.AD
            return answer

        self.resolver = self.of(NEAR, dnssec=True)
        self.servers.reactions[NEAR] = react
        self.assertFalse(self.successResultOf(self.addresses()).secure)


class MalformedTests(SynchronousTestCase):
    """Whatever octets come, the result is an answer or an error of ours."""

    @settings(max_examples=300, deadline=None)
    @given(
        changes=st.lists(st.tuples(st.integers(2, 200), st.integers(0, 255)), max_size=4),
        cut=st.one_of(st.none(), st.integers(0, 200)),
        tail=st.binary(max_size=3),
    )
    def test_any_octets(self, changes: list[tuple[int, int]], cut: int | None, tail: bytes) -> None:
        """A good answer with any octets of it changed, cut or added to."""
        clock = Clock()

        async def ask(query: dns.message.QueryMessage, server: Endpoint, timeout: float) -> dns.message.Message:
            wire = bytearray(
                answered(
                    query,
                    "example.com. 300 IN CNAME a.example.com.",
                    "a.example.com. 300 IN MX 10 mail.example.com.",
                    SOA,
                ).to_wire()
            )
            for place, octet in changes:
                wire[place % len(wire)] = octet
            answer = dns.message.from_wire(bytes(wire[:cut]) + tail)
            if not query.is_response(answer):
                raise dns.exception.FormError
            return answer

        resolver = Resolver(clock.seconds, ask, [NEAR])
        asked = Deferred.fromCoroutine(resolver.mx("example.com"))
        result: list[object] = []
        asked.addBoth(result.append)
        failure = result[0]
        if not isinstance(failure, MXAnswer):
            self.assertIsInstance(getattr(failure, "value", failure), DNSError)


class ServersFromTests(SynchronousTestCase):
    """Which servers are asked."""

    def test_configured(self) -> None:
        """Those that are configured, whatever the file says."""
        self.assertEqual(list(servers_from([FAR], "/nonexistent")), [FAR])

    def test_file(self) -> None:
        """Those of the file, in its order."""
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as file:
            file.write("# nameserver 192.0.2.1\nsearch example.com\nnameserver 192.0.2.2\nnameserver\n")
            file.write("nameserver nonsense\n nameserver 2001:DB8::1 # ours\noptions edns0\n")
        self.assertEqual(servers_from([], path), [Endpoint("192.0.2.2", 53), Endpoint("2001:db8::1", 53)])

    def test_none(self) -> None:
        """This host, when there is no file, or none in it."""
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as file:
            file.write("search example.com\n")
        self.assertEqual(servers_from([], path), [Endpoint("127.0.0.1", 53)])
        self.assertEqual(servers_from([], path + "x"), [Endpoint("127.0.0.1", 53)])


class OverNetworkTests(TestCase):
    """Resolver and exchange together against a server on loopback."""

    async def test_truncated(self) -> None:
        """Forty MX records come over TCP after UDP was too small."""
        server = NameServer(IReactorTCP(reactor))
        records = [f"example.com. 300 IN MX {number} mx{number}.example.com." for number in range(40)]

        def framed(query: dns.message.Message) -> list[bytes]:
            wire = answered(query, *records).to_wire()
            return [len(wire).to_bytes(2, "big"), wire[:100], wire[100:]]

        server.udp = lambda query: [truncated(query)]
        server.tcp = framed
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        resolver = Resolver(Clock().seconds, Exchange(IReactorTCP(reactor)).ask, [Endpoint("127.0.0.1", server.port)])
        answer = await resolver.mx("example.com")
        self.assertEqual(len(answer.records), 40)
        self.assertEqual(server.asked[0][1].question[0].rdtype, dns.rdatatype.MX)
