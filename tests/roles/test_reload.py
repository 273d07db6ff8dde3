"""
Tests of L{smtpreuse.roles.reload}. A reload of the running service is tested in C{tests.system.test_reload}.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event, get_ident

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorThreads
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import alsoProvides

from smtpreuse.config.load import settings_of
from smtpreuse.config.settings import Settings
from smtpreuse.errors import ConfigurationError, PolicyError, ServiceEnding
from smtpreuse.model.content import MemoryContent
from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.policy import Level, Policy
from smtpreuse.model.reuse import Plaintext
from smtpreuse.model.route import Site
from smtpreuse.roles.assembly import IServiceReactor, assemble
from smtpreuse.roles.reload import Reloader, at_start, kept, unfit
from smtpreuse.scache.store import Resting
from smtpreuse.tls.policy import Policies
from tests.agent.world import PROFILE, TLS, facts
from tests.control.wire import Acts
from tests.fakes import FakeEnd, candidate
from tests.peers import missing
from tests.queue.world import message

NOW = 1000.0
SITE = Site(name="example.com")


def resting(number: int, destination: str = "example.com", level: Level = Level.MAY, **values: object) -> Resting:
    """A session at rest, opened at this level."""
    return Resting(
        number=number, destination=destination, site=SITE, key=PROFILE.key(candidate(level=level)),
        facts=facts(level=level, uses=1, **values), since=NOW, until=NOW + 15,
    )  # fmt: skip


class UnfitTests(SynchronousTestCase):
    """A session goes when nothing like it would be opened any more, or when nobody can tell."""

    def unfit(self, *sessions: Resting, **values: str) -> list[int]:
        """Under these settings."""
        return unfit(sessions, PROFILE, Policies(settings_of(**values)).policy, NOW)

    def test_fit(self) -> None:
        """What would be opened again stays; so does what proves more than is asked for."""
        encrypted = resting(2, tls=TLS)
        self.assertEqual(self.unfit(resting(1), encrypted), [])
        self.assertEqual(self.unfit(encrypted, smtp_tls_security_level="encrypt"), [])

    def test_too_weak(self) -> None:
        """Plaintext where encryption is asked for: everywhere, or at its nexthop."""
        sessions = resting(1), resting(2, "example.test"), resting(3, tls=TLS)
        self.assertEqual(self.unfit(*sessions, smtp_tls_security_level="encrypt"), [1, 2])
        self.assertEqual(self.unfit(*sessions, smtp_tls_policy_maps="inline:{example.test=encrypt}"), [2])

    def test_other_handshake(self) -> None:
        """What was made in another way, also where it is the better one."""
        sessions = resting(1, tls=TLS), resting(2, level=Level.NONE)
        self.assertEqual(self.unfit(*sessions), [2])
        self.assertEqual(self.unfit(*sessions, smtp_tls_security_level="none"), [1])
        self.assertEqual(
            self.unfit(sessions[0], smtp_tls_policy_maps="inline:{ {example.com = may protocols=>=TLSv1.3} }"), [1]
        )

    def test_reuse_forbidden(self) -> None:
        """A TLS session where they are for one transaction."""
        self.assertEqual(self.unfit(resting(1, tls=TLS), resting(2), smtp_tls_connection_reuse="no"), [1])

    def test_other_profile(self) -> None:
        """What was opened under another name."""
        policy = Policies(settings_of()).policy
        self.assertEqual(unfit([resting(1)], evolve(PROFILE, helo="other.example.com"), policy, NOW), [1])

    def test_worn_out(self) -> None:
        """What carries nothing any more."""
        self.assertEqual(self.unfit(resting(1, good_until=NOW - 1), resting(2, plaintext=Plaintext.REFUSED)), [1, 2])

    def test_in_doubt(self) -> None:
        """What has no destination, or one whose policy cannot be told."""

        def policy(nexthop: Nexthop) -> Policy:
            raise PolicyError("4.7.5", "no")

        self.assertEqual(self.unfit(resting(1, "")), [1])
        self.assertEqual(unfit([resting(1)], PROFILE, policy, NOW), [1])


class KeptTests(SynchronousTestCase):
    """Some parameters wait for the next start."""

    def test_names(self) -> None:
        """What is opened at a start, and held until the end."""
        self.assertEqual(list(at_start()), [
            "listen", "queue_directory", "smtp_processes", "tlsproxy_processes", "scache_processes", "control_socket",
        ])

    def test_kept(self) -> None:
        """These stay as they are, all others are the new ones."""
        old = settings_of(queue_directory="/old", soft_bounce="no", listen="tcp:1")
        new = settings_of(queue_directory="/new", soft_bounce="yes", listen="tcp:2")
        found = kept(old, new)
        self.assertEqual((found.queue_directory, found.control_socket), ("/old", "/old/control"))
        self.assertEqual((found.listen, found.soft_bounce), (("tcp:1",), True))


class ReloaderTests(TestCase):
    """A good configuration is in force when a reload is over, a bad one changes nothing, and both are told."""

    def setUp(self) -> None:
        try:
            version("smtpreuse")
        except PackageNotFoundError:
            raise missing("an installed copy of smtpreuse (tox makes one)") from None
        alsoProvides(reactor, IServiceReactor)
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.ending = False
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.found = self.settings()
        self.house = assemble(self.found, IServiceReactor(reactor), Acts())
        self.house.spool.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.house.spool.close()))
        self.addCleanup(self.house.maillog.close)
        self.addCleanup(self.house.cache.close_all)
        self.addCleanup(self.house.dispatcher._loader.stop)
        self.reloader = Reloader(
            self.house, self.found, lambda: self.read(), IReactorThreads(reactor), lambda: self.ending
        )
        self.read: Callable[[], Settings] = lambda: self.found

    def settings(self, **values: str) -> Settings:
        """These, on the files of this test."""
        files = {
            "queue_directory": str(self.directory / "spool"), "maillog_file": str(self.directory / "log"),
            "control_socket": "/nonexistent/control", "myhostname": "host.example.com",
        }  # fmt: skip
        return settings_of(**{**files, **values})

    async def reload(self, **values: str) -> list[str]:
        """With these values in the file."""
        self.found = self.settings(**values)
        return await self.reloader.reload()

    def logged(self) -> list[str]:
        """What the reloads said."""
        texts = [formatEvent(event) for event in self.events if event.get("log_namespace") == "smtpreuse.roles.reload"]
        return [text for text in texts if text is not None]

    async def save(self) -> FakeEnd:
        """A session rests, in plaintext."""
        end = FakeEnd()
        key = evolve(PROFILE, helo="host.example.com").key(candidate())
        soon = facts(uses=1, good_until=self.house.clock.seconds() + 100)
        await self.house.cache.save("example.com", SITE, key, soon, end)
        return end

    async def test_every_part(self) -> None:
        """Each goes by the new settings."""
        await self.reload(
            myhostname="new.example.com", maillog_file=str(self.directory / "other"), relayhost="[192.0.2.9]",
            smtp_tls_security_level="encrypt", queue_minfree="1000000000000000", content_cache_size="1",
            minimal_backoff_time="50s", default_destination_concurrency_limit="3", smtp_connect_timeout="7s",
            resting_session_limit="0", smtp_tls_loglevel="0",
        )  # fmt: skip
        house, new = self.house, self.reloader.settings
        self.assertEqual(house.smtpd.settings, new)
        self.assertEqual(house.router.hop("user@example.com"), "smtp:[192.0.2.9]")
        route = await house.router.route(Nexthop.parse("[192.0.2.9]"))
        self.assertIs(route.candidates[0].policy.level, Level.ENCRYPT)
        self.assertFalse(house.spool.room(0))
        house.contents.put("Q1", b"xx")
        self.assertEqual(len(house.contents), 0)
        house.maillog.write("smtp", "x")
        house.maillog.flush()
        self.assertTrue((self.directory / "other").read_text())
        await self.save()
        self.assertEqual(house.cache.resting(None), 0)
        self.assertEqual(house.dispatcher._traffic._rules.site.limit, 3)
        self.assertEqual(house.returns._reporter, "new.example.com")
        self.assertEqual(house.agent._finder._connector._rules.connect_timeout, 7.0)
        self.assertEqual((house.agent._tls_loglevel, house.hosts._pause), (0, 10.0))
        self.assertEqual(self.logged(), ["reloaded: no file, the defaults"])

    async def test_nothing_new(self) -> None:
        """The same settings leave everything as it is."""
        end = await self.save()
        self.assertEqual(await self.reload(), [])
        self.assertEqual((end.written, self.logged()), (b"", ["reloaded: nothing has changed"]))

    async def test_resting(self) -> None:
        """Sessions at rest that would not be opened any more are told QUIT, others are not."""
        end = await self.save()
        await self.reload(smtp_mail_timeout="7s")
        self.assertEqual(end.written, b"")
        await self.reload(smtp_tls_security_level="encrypt")
        self.assertEqual((end.written, end.closed), (b"QUIT\r\n", True))
        self.assertIn(
            "sessions at rest ended, as they would not be opened like this any more: 1", self.logged()
        )

    async def test_routes(self) -> None:
        """No route that the queue remembers is good any more, whatever it was that changed."""
        hop = self.house.dispatcher.hop("smtp:[192.0.2.9]")
        hop.route = await self.house.router.route(Nexthop.parse("[192.0.2.9]"))
        await self.reload(smtp_mail_timeout="7s")
        self.assertLess(hop.route.good_until, 0.0)

    async def test_hops(self) -> None:
        """What waits in the queue has its new hop when it is over."""
        spool = self.house.spool
        await spool.append(message("Q1", "ann@example.com"), MemoryContent(b"hello\r\n"))
        await self.reload(relayhost="[192.0.2.9]")
        self.assertEqual(await spool.nexthops(-1.0, 1e12, "", 10), ["smtp:[192.0.2.9]"])

    async def test_hops_cannot_be_changed(self) -> None:
        """Where the queue does not take them that is told, and all else holds."""
        await self.house.spool.close()
        await self.reload(relayhost="[192.0.2.9]")
        self.assertEqual(self.house.router.hop("user@example.com"), "smtp:[192.0.2.9]")
        self.assertIn("queue not routed anew, recipients keep their hops: the queue is closed", self.logged())

    async def test_resolver(self) -> None:
        """Another way to find names holds at once; else what was learned of names stays."""
        before = self.house.router._resolver
        await self.reload(smtp_mail_timeout="7s")
        self.assertIs(self.house.router._resolver, before)
        await self.reload(smtp_dns_support_level="disabled", smtp_host_lookup="native")
        self.assertIsNot(self.house.router._resolver, before)

    async def test_next_start(self) -> None:
        """What takes effect at a start stays as it is, is told with its value, and is told again."""
        for _ in range(2):
            self.events.clear()
            waiting = await self.reload(queue_directory="/var/spool/other", listen="tcp:26", soft_bounce="yes")
            self.assertEqual(waiting, ["listen", "queue_directory"])
            self.assertEqual(self.logged()[1:], [
                "listen: takes effect at the next start: tcp:26",
                "queue_directory: takes effect at the next start: /var/spool/other",
            ])  # fmt: skip
        settings = self.reloader.settings
        self.assertEqual((settings.queue_directory, settings.soft_bounce), (str(self.directory / "spool"), True))

    async def refused(self, error: type[Exception]) -> str:
        """Why it was; nothing has changed."""
        before = self.reloader.settings
        text = ""
        try:
            await self.reloader.reload()
        except error as found:
            text = str(found)
        self.assertTrue(text)
        self.assertIs(self.reloader.settings, before)
        self.assertEqual(self.house.smtpd.settings, before)
        return text

    async def test_bad(self) -> None:
        """Each problem is a line."""

        def read() -> Settings:
            raise ConfigurationError(["main.cf:1: one", "main.cf:2: two"])

        self.read = read
        self.assertEqual(await self.refused(ConfigurationError), "main.cf:1: one\nmain.cf:2: two")
        self.assertEqual(self.logged(), ["not reloaded: main.cf:1: one", "not reloaded: main.cf:2: two"])
        self.read = lambda: self.found
        await self.reload(soft_bounce="yes")

    async def test_no_log(self) -> None:
        """An operator's log that cannot be opened is found before anything changes."""
        self.found = self.settings(maillog_file=str(self.directory / "missing" / "log"), soft_bounce="yes")
        expected = f"maillog_file: cannot be opened (No such file or directory): {self.directory}/missing/log"
        self.assertIn(expected, await self.refused(ConfigurationError))

    async def test_at_the_end(self) -> None:
        """A service that is about to end reads nothing, and goes by nothing that it was reading."""
        self.found = self.settings(soft_bounce="yes")

        def read() -> Settings:
            self.ending = True
            return self.found

        self.read = read
        expected = "the service is about to end: the configuration is read at its next start"
        self.assertEqual(await self.refused(ServiceEnding), expected)
        reads: list[Settings] = []
        self.read = reads.pop
        self.assertEqual(await self.refused(ServiceEnding), expected)
        self.assertEqual(self.logged(), [f"not reloaded: {expected}"] * 2)

    async def test_one_by_one(self) -> None:
        """A second one waits for the first, and reads what is there then; nobody else waits for the reading."""
        go, seen = Event(), []

        def read() -> Settings:
            seen.append(get_ident())
            go.wait()
            return self.settings(smtp_mail_timeout=f"{len(seen)}s")

        self.read = read
        running = [ensureDeferred(self.reloader.reload()) for _ in range(2)]
        go.set()
        for each in running:
            await each
        self.assertEqual((len(seen), self.reloader.settings.smtp_mail_timeout), (2, 2.0))
        self.assertNotIn(get_ident(), seen)
