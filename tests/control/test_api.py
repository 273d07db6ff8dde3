"""
Tests of L{smtpreuse.control.api}.
"""

from __future__ import annotations

import json
import os
from urllib.parse import urlencode

from attrs import evolve
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.control.api import PAGE, make_site
from smtpreuse.errors import ConfigurationError, ServiceEnding
from smtpreuse.interfaces import IQueueDesk, IServiceControl, IServiceView
from smtpreuse.model.queueview import Counters, ProcessRow, QueueRow, SessionRow
from tests.control.wire import Acts, Desk, View, row, spool_trouble

BUSY = SessionRow(
    site="example.com",
    endpoint="[192.0.2.1]:25",
    host="mx.example.com",
    state="busy",
    opened=990.0,
    idle_since=None,
    uses=3,
    level="may",
    protocol="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    verdict="Untrusted",
    process=7,
)

FORM = "application/x-www-form-urlencoded"


class ControlTestCase(SynchronousTestCase):
    """A site on the wire, with a queue and a service behind it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.ahead = 0.0
        self.desk = Desk()
        self.view = View()
        self.acts = Acts()
        self.site = make_site(
            self.desk, self.view, self.acts, self.clock, "9.8.7", lambda: self.clock.seconds() + self.ahead
        )

    def exchange(
        self, method: str, target: str, form: list[tuple[str, str]] | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers in lower case, and body of the answer."""
        return self.posted(target, urlencode(form or []), FORM if form is not None else "", method)

    def posted(self, target: str, body: str, kind: str, method: str = "POST") -> tuple[int, dict[str, str], str]:
        """The same of a body of some kind."""
        kind = f"Content-Type: {kind}\r\n" if kind else ""
        transport = StringTransport(peerAddress=UNIXAddress(None), hostAddress=UNIXAddress("control"))
        protocol = self.site.buildProtocol(UNIXAddress(None))
        protocol.makeConnection(transport)
        head = f"{method} {target} HTTP/1.0\r\n{kind}Content-Length: {len(body)}\r\n\r\n"
        protocol.dataReceived((head + body).encode())
        head, _, answer = transport.value().decode().partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split()[1]), headers, answer

    def ask(
        self, method: str, target: str, form: list[tuple[str, str]] | None = None
    ) -> tuple[int, list[dict[str, object]]]:
        """Status and objects of the answer."""
        status, _, body = self.exchange(method, target, form)
        return status, [json.loads(line) for line in body.splitlines()]


class SeamTests(SynchronousTestCase):
    """The fakes are what the seams say."""

    def test_interfaces(self) -> None:
        """The fakes implement their interfaces."""
        self.assertTrue(verifyObject(IQueueDesk, Desk()))
        self.assertTrue(verifyObject(IServiceView, View()))
        self.assertTrue(verifyObject(IServiceControl, Acts()))


class QueueTests(ControlTestCase):
    """C{/queue} lists and shows messages."""

    def test_empty(self) -> None:
        """An empty queue is an empty answer."""
        status, headers, body = self.exchange("GET", "/queue")
        self.assertEqual((status, body), (200, ""))
        self.assertEqual(headers["content-type"], "application/x-ndjson")
        self.assertNotIn("link", headers)
        self.assertEqual(self.desk.calls, [("page", "", PAGE)])

    def test_list(self) -> None:
        """A message has the keys that scripts rely on, in this order, and is one line."""
        self.desk.rows = [row("4Aa", reason="connection refused", attempts=2)]
        status, _, body = self.exchange("GET", "/queue")
        self.assertEqual(
            body,
            '{"queue_name":"deferred","queue_id":"4Aa","arrival_time":1000.5,"message_size":4096,"forced_expire":false,'
            '"sender":"sender@example.com","recipients":[{"address":"user@example.com",'
            '"delay_reason":"connection refused"}],"site":"example.com","next_attempt":1300.0,"attempts":2}\n',
        )
        self.assertEqual(status, 200)

    def test_wall(self) -> None:
        """Times of day are those of the clock on the wall, in whole seconds: ages and a second look stay the same."""
        self.desk.rows = [row("4Aa")]
        _, (before,) = self.ask("GET", "/queue")
        self.ahead = 3600.3
        _, (after,) = self.ask("GET", "/queue")
        self.assertEqual((before["arrival_time"], before["next_attempt"]), (1000.5, 1300.0))
        self.assertEqual((after["arrival_time"], after["next_attempt"]), (4600.5, 4900.0))
        self.assertEqual(self.ask("GET", "/queue/4Aa")[1][0]["arrival_time"], 4600.5)

    def test_active(self) -> None:
        """A message that the dispatcher has taken up is active."""
        self.desk.rows = [row("4Aa"), row("4Ab")]
        self.view.taken_up = {"4Ab"}
        _, shown = self.ask("GET", "/queue")
        self.assertEqual([each["queue_name"] for each in shown], ["incoming", "active"])

    def test_pages(self) -> None:
        """A page that is not the last one names the next one, and the last one does not."""
        self.desk.rows = [row("4Aa"), row("4Ab"), row("4Ac")]
        _, headers, body = self.exchange("GET", "/queue?limit=2")
        self.assertEqual(headers["link"], '</queue?after=4Ab&limit=2>; rel="next"')
        self.assertEqual(body.count("\n"), 2)
        _, headers, body = self.exchange("GET", "/queue?after=4Ab&limit=2")
        self.assertNotIn("link", headers)
        self.assertEqual([json.loads(line)["queue_id"] for line in body.splitlines()], ["4Ac"])

    def test_limits(self) -> None:
        """The limit is a number from 1 to a page; else the answer says what is allowed."""
        for limit in ("0", "1001", "-1", "many", "9" * 5000, "²"):
            status, shown = self.ask("GET", f"/queue?{urlencode({'limit': limit})}")
            self.assertEqual(
                (status, shown),
                (400, [{"error": f"limit is not a number of rows: {limit!r} (allowed: 1 to 1000)"}]),
            )
        self.assertEqual(self.desk.calls, [])
        for limit in ("1", "1000"):
            self.assertEqual(self.ask("GET", f"/queue?limit={limit}")[0], 200)

    def test_twice(self) -> None:
        """An argument given twice is refused."""
        status, shown = self.ask("GET", "/queue?limit=2&limit=3")
        self.assertEqual((status, shown), (400, [{"error": "limit is given more than once"}]))

    def test_bad_after(self) -> None:
        """A page can only begin behind a queue id."""
        status, shown = self.ask("GET", "/queue?after=4A-a")
        self.assertEqual((status, shown), (400, [{"error": "not a queue id: '4A-a' (allowed: letters and digits)"}]))

    def test_show(self) -> None:
        """One message comes with its header, and with history, which nobody keeps."""
        self.desk.rows = [evolve(row("4Aa"), header="Subject: x\r\n")]
        status, shown = self.ask("GET", "/queue/4Aa")
        self.assertEqual(status, 200)
        self.assertEqual(list(shown[0])[-2:], ["headers", "history"])
        self.assertEqual(shown[0]["queue_id"], "4Aa")
        self.assertEqual(shown[0]["headers"], "Subject: x\r\n")
        self.assertIsNone(shown[0]["history"])

    def test_show_missing(self) -> None:
        """What is not there is 404."""
        self.assertEqual(self.ask("GET", "/queue/4Aa"), (404, [{"error": "no such queue id: 4Aa"}]))

    def test_show_no_id(self) -> None:
        """What can be no queue id never reaches the queue."""
        for text in ("4A.a", "", "*", "4%C3%A4"):
            self.assertEqual(self.ask("GET", f"/queue/{text}")[0], 400, text)

    def test_unprintable(self) -> None:
        """What a peer wrote reaches no terminal: it is escaped, lone surrogates included."""
        self.desk.rows = [row("4Aa", reason="\x1b[2J\x9b \udcff\u202e")]
        _, _, body = self.exchange("GET", "/queue")
        self.assertIn('"delay_reason":"\\u001b[2J\\u009b \\udcff\\u202e"', body)


class ChangeTests(ControlTestCase):
    """What changes the queue."""

    def setUp(self) -> None:
        super().setUp()
        self.desk.rows = [row("4Aa"), row("4Ab"), row("4Ac")]

    def test_flush(self) -> None:
        """All deferred mail becomes due, and the dispatcher hears of it."""
        self.assertEqual(self.ask("POST", "/queue/flush"), (200, [{"changed": 3, "in_flight": 0}]))
        self.assertEqual(self.desk.calls, [("flush", None)])
        self.assertEqual(self.view.told, [["flushed"]])

    def test_flush_what(self) -> None:
        """What is not understood flushes nothing: not by default everything."""
        for target, body, kind in (
            ("/queue/flush?sites=example.com", "", ""), ("/queue/flush?site=", "", ""),
            ("/queue/flush?site=a&queue=b", "", ""), ("/queue/flush", '{"site": "example.com"}', "application/json"),
            ("/queue/flush?site=a", "x", "text/plain"), ("/queue/flush", "example.com", FORM),
            ("/queue/flush", "&&", FORM), ("/queue/flush", "site", FORM), ("/queue/flush", "x", ""),
        ):  # fmt: skip
            status, _, _ = self.posted(target, body, kind)
            self.assertEqual((status, self.desk.calls), (400, []), (target, body))
        self.assertEqual(self.posted("/queue/flush", "site=a", f"{FORM}; charset=utf-8")[0], 200)

    def test_flush_site(self) -> None:
        """One site can be flushed; it stands in the query or in a form."""
        self.ask("POST", "/queue/flush?site=%5Brelay.example.com%5D%3A587")
        self.ask("POST", "/queue/flush", [("site", "example.com")])
        self.assertEqual(self.desk.calls, [("flush", "[relay.example.com]:587"), ("flush", "example.com")])

    def test_delete_one(self) -> None:
        """A message is deleted, and the dispatcher forgets it."""
        self.assertEqual(self.ask("POST", "/queue/4Ab/delete"), (200, [{"changed": 1, "in_flight": 0}]))
        self.assertEqual([each.queue_id for each in self.desk.rows], ["4Aa", "4Ac"])
        self.assertEqual(self.view.told, [["4Ab"]])

    def test_delete_in_flight(self) -> None:
        """What a transaction may be carrying is left alone."""
        self.view.carried = {"4Ab", "4Zz"}
        self.assertEqual(self.ask("POST", "/queue/4Ab/delete"), (200, [{"changed": 0, "in_flight": 1}]))
        self.assertEqual(len(self.desk.rows), 3)
        self.assertEqual(self.view.told, [])

    def test_delete_missing(self) -> None:
        """What is not there is 404."""
        self.assertEqual(self.ask("POST", "/queue/4Zz/delete"), (404, [{"error": "no such queue id: 4Zz"}]))

    def test_delete_several(self) -> None:
        """Several at once: what is there goes, and the rest is not counted."""
        form = [("id", "4Aa"), ("id", "4Ac"), ("id", "4Zz")]
        self.assertEqual(self.ask("POST", "/queue/delete", form), (200, [{"changed": 2, "in_flight": 0}]))
        self.assertEqual(self.view.told, [["4Aa", "4Ac"]])

    def test_delete_all(self) -> None:
        """All go but those in flight."""
        self.view.carried = {"4Ab"}
        self.assertEqual(self.ask("POST", "/queue/delete", [("all", "yes")]), (200, [{"changed": 2, "in_flight": 1}]))
        self.assertEqual(self.desk.calls, [("delete", None, frozenset({"4Ab"}))])

    def test_delete_unclear(self) -> None:
        """Deleting without saying what, or saying two things, deletes nothing."""
        unclear: list[list[tuple[str, str]]] = [[], [("all", "no")], [("all", "yes"), ("id", "4Aa")], [("id", "")]]
        for form in unclear:
            self.assertEqual(self.ask("POST", "/queue/delete", form)[0], 400, form)
        self.assertEqual(self.desk.calls, [])


class SessionsTests(ControlTestCase):
    """C{/sessions} shows what is open."""

    def test_sessions(self) -> None:
        """A session has the keys that scripts rely on; what rests has an idle time, plaintext no TLS."""
        resting = evolve(BUSY, state="resting", idle_since=998.25, protocol=None, cipher=None, verdict=None)
        self.view.rows = [BUSY, resting]
        status, _, body = self.exchange("GET", "/sessions")
        self.assertEqual(
            body,
            '{"site":"example.com","endpoint":"[192.0.2.1]:25","host":"mx.example.com","state":"busy","age":10.0,'
            '"idle":null,"uses":3,"level":"may","tls":{"protocol":"TLSv1.3","cipher":"TLS_AES_256_GCM_SHA384",'
            '"verdict":"Untrusted"},"process":7}\n'
            '{"site":"example.com","endpoint":"[192.0.2.1]:25","host":"mx.example.com","state":"resting","age":10.0,'
            '"idle":1.75,"uses":3,"level":"may","tls":null,"process":7}\n',
        )
        self.assertEqual(status, 200)


    def test_connecting(self) -> None:
        """What is not settled while a session is connecting is null."""
        self.view.rows = [evolve(BUSY, state="connecting", endpoint="", host="", level="", uses=0, protocol=None)]
        _, (shown,) = self.ask("GET", "/sessions")
        absent = [key for key, value in shown.items() if value is None]
        self.assertEqual(absent, ["endpoint", "host", "idle", "level", "tls"])


class StatusTests(ControlTestCase):
    """C{/status} shows the service as a whole."""

    def test_status(self) -> None:
        """All keys that scripts rely on, in one object."""
        self.desk.stored = {"incoming": 5, "deferred": 7, "hold": 1, "corrupt": 2}
        self.view.taken_up = {"4Aa", "4Ab"}
        own = evolve(BUSY, process=os.getpid())
        self.view.rows = [own, own, evolve(own, state="resting"), evolve(BUSY, state="connecting", process=1)]
        self.view.counted = Counters(delivered=10, reused=8, deferred=3, bounced=1)
        self.clock.advance(60.5)
        status, shown = self.ask("GET", "/status")
        (role,) = shown[0]["roles"]
        self.assertGreater(role.pop("rss"), 1_000_000)
        self.assertGreater(role.pop("cpu"), 0)
        pid = os.getpid()
        self.assertEqual(role, {"name": "smtpreuse", "pid": pid, "age": 60.5, "sessions": 3})
        self.assertEqual(
            shown,
            [{
                "version": "9.8.7",
                "pid": pid,
                "state": "running",
                "queue": {"incoming": 3, "active": 2, "deferred": 7, "hold": 1, "corrupt": 2},
                "sessions": {"connecting": 1, "busy": 2, "resting": 1},
                "delivered": 10,
                "reused": 8,
                "deferred": 3,
                "bounced": 1,
                "roles": [role],
                "resolver": {"validates": None, "tlsa": None, "large": None},
            }],
        )
        self.assertEqual(status, 200)

    def test_processes(self) -> None:
        """Each process of the service is one role, with what it uses; of one that is gone nothing is known."""
        mine = ProcessRow(name="smtp 1", process=os.getpid(), started=self.clock.seconds(), sessions=5)
        self.view.others = [mine, evolve(mine, name="scache 1", process=2**22)]
        self.clock.advance(3.0)
        _, (shown,) = self.ask("GET", "/status")
        main, busy, gone = shown["roles"]
        self.assertEqual(main["name"], "smtpreuse")
        self.assertEqual((busy["name"], busy["sessions"], busy["age"]), ("smtp 1", 5, 3.0))
        self.assertGreater(busy["rss"], 1_000_000)
        self.assertGreater(busy["cpu"], 0)
        self.assertEqual((gone["rss"], gone["cpu"]), (None, 0))

    def test_draining(self) -> None:
        """A service that is about to end says so."""
        self.view.ending = True
        _, shown = self.ask("GET", "/status")
        self.assertEqual(shown[0]["state"], "draining")


class RefusalTests(ControlTestCase):
    """What is not done is answered with its reason, in JSON."""

    def test_unknown_path(self) -> None:
        """There is nothing at other paths, nor at those of actions that do not exist."""
        for path in ("/", "/mail", "/queue/4Aa/hold", "/queue/4Aa/delete/x", "/status/x", "/queue/hold/x"):
            self.assertEqual(self.ask("GET", path), (404, [{"error": f"there is nothing at {path}"}]))

    def test_wrong_method(self) -> None:
        """A known path names the methods that it takes."""
        status, headers, body = self.exchange("POST", "/status")
        self.assertEqual((status, headers["allow"]), (405, "GET"))
        self.assertEqual(json.loads(body), {"error": "/status does not take POST (allowed: GET)"})
        for method, path in (
            ("POST", "/queue"), ("GET", "/queue/flush"), ("GET", "/queue/delete"), ("DELETE", "/queue/4Aa"),
            ("GET", "/queue/4Aa/delete"), ("PUT", "/sessions"), ("HEAD", "/status"),
        ):
            self.assertEqual(self.exchange(method, path)[0], 405, (method, path))

    def test_queue_unusable(self) -> None:
        """A queue that does not work is told from a service that does not."""
        self.desk.broken = spool_trouble()
        for method, path in (("GET", "/queue"), ("GET", "/queue/4Aa"), ("POST", "/queue/flush"), ("GET", "/status")):
            self.assertEqual(
                self.ask(method, path), (503, [{"error": "the queue cannot be used: disk I/O error"}]), (method, path)
            )
        self.assertEqual(self.view.told, [])

    def test_fault(self) -> None:
        """A fault of ours is in the log with its traceback, and the answer only says where to look."""
        self.desk.broken = RuntimeError("secret")
        self.assertEqual(
            self.ask("GET", "/queue"), (500, [{"error": "the service could not do it: its log says why"}])
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class GoneTests(ControlTestCase):
    """A client that goes away before its answer does no harm."""

    def test_gone(self) -> None:
        """The work is finished, and nothing is written to a connection that is not there."""
        waiting: Deferred[None] = Deferred()
        desk = self.desk

        async def slowly(queue_id: str) -> QueueRow | None:
            await waiting
            desk.calls.append(("shown", queue_id))
            return None

        self.patch(Desk, "show", lambda _, queue_id: slowly(queue_id))
        transport = StringTransport(peerAddress=UNIXAddress(None), hostAddress=UNIXAddress("control"))
        protocol = self.site.buildProtocol(UNIXAddress(None))
        protocol.makeConnection(transport)
        protocol.dataReceived(b"GET /queue/4Aa HTTP/1.0\r\n\r\n")
        protocol.connectionLost(Failure(ConnectionDone()))
        waiting.callback(None)
        self.assertEqual(desk.calls, [("shown", "4Aa")])
        self.assertEqual(transport.value(), b"")


class SiteTests(ControlTestCase):
    """The site keeps quiet."""

    def test_quiet(self) -> None:
        """A request leaves nothing in the log, nor does starting."""
        seen: list[object] = []
        self.site.doStart()
        self.addCleanup(self.site.doStop)
        globalLogPublisher.addObserver(seen.append)
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)
        self.assertEqual(self.ask("GET", "/status")[0], 200)
        self.assertEqual(seen, [])


class ServiceTests(ControlTestCase):
    """C{/reload} and C{/drain} have the service do it, and say what comes of it."""

    def test_reload(self) -> None:
        """What waits for the next start is named."""
        self.assertEqual(self.ask("POST", "/reload"), (200, [{"reloaded": True, "next_start": []}]))
        self.acts.waiting = ["listen", "queue_directory"]
        _, _, body = self.exchange("POST", "/reload")
        self.assertEqual(body, '{"reloaded":true,"next_start":["listen","queue_directory"]}\n')
        self.assertEqual(self.acts.reloads, 2)

    def test_bad(self) -> None:
        """Every problem is named."""
        self.acts.broken = ConfigurationError(["main.cf:1: one", "main.cf:2: two"])
        _, _, body = self.exchange("POST", "/reload")
        self.assertEqual(body, '{"reloaded":false,"problems":["main.cf:1: one","main.cf:2: two"]}\n')

    def test_at_the_end(self) -> None:
        """A service that is about to end refuses."""
        self.acts.broken = ServiceEnding("the service is about to end")
        self.assertEqual(self.ask("POST", "/reload"), (409, [{"error": "the service is about to end"}]))

    def test_drain(self) -> None:
        """For how long it may take is said."""
        self.assertEqual(self.ask("POST", "/drain"), (200, [{"draining": True, "limit": 30.0}]))
        self.assertEqual(self.acts.drains, 1)

    def test_not_asked_for(self) -> None:
        """Looking does nothing, and arguments mean nothing here: whatever was meant is not done."""
        for path in ("/reload", "/drain"):
            self.assertEqual(self.ask("GET", path)[0], 405)
            status, (refused,) = self.ask("POST", path, [("in", "1h"), ("at", "2")])
            self.assertEqual((status, refused["error"]), (400, "not an argument of this: at, in (allowed: none)"))
        self.assertEqual((self.acts.reloads, self.acts.drains), (0, 0))
