"""
Sessions that a real server ends in its own ways, and what may share one.
"""

from __future__ import annotations

import itertools

from tests.service import Service, until
from tests.system.destination import Destination
from tests.system.injection import inject, letter, letters
from tests.system.world import SystemTestCase

# So that every session rests when nothing is due for it, until the server or a limit of the test ends it.
RESTS = {"smtp_connection_cache_destinations": "127.0.0.1, localhost", "smtp_connection_cache_time_limit": "1h"}


class ReuseTests(SystemTestCase):
    """Whatever a server does to a session between two messages, no message is deferred or doubled for it."""

    def undisturbed(self, running: Service, sink: Destination) -> None:
        """Nothing was deferred or doubled."""
        self.empty(running)
        self.assertEqual(running.maillog("status=deferred"), [])
        self.check_single(sink)

    def test_closes_after_each_message(self) -> None:
        """A server that closes behind every final reply gets a connection for each message."""
        for tls in (False, True):
            sink = self.destination(tls=tls, most_messages=1)
            running = self.service(sink)
            sent = inject(running.start(), list(itertools.islice(letters("E"), 60))).accepted
            self.arrived(sink, sent)
            self.undisturbed(running, sink)
            self.assertGreaterEqual(sink.connections, 60)

    def dismissed(self, *, tls: bool) -> None:
        """A server that says 421 to a session at rest; then the next message comes."""
        sink = self.destination(tls=tls)
        sink.manners.patience = 0.5
        running = self.service(sink, **RESTS)
        running.start()
        # No third one: where the machine stalls, two rests of one length teach the service to be the first to end it.
        for number in range(2):
            self.arrived(sink, inject(running.port, [letter(f"I{number}")]).accepted)
            until(lambda: not sink.open, lambda: "it was not told 421")
        self.undisturbed(running, sink)
        self.assertEqual((sink.connections, sink.dismissed, sink.quits), (2, 2, 0))

    def test_421_while_it_rests(self) -> None:
        """A server that has enough of a session at rest: the next message has another one, at once."""
        self.dismissed(tls=False)
        self.dismissed(tls=True)

    def worn_out(self, *, tls: bool) -> None:
        """A session is past smtp_connection_reuse_time_limit while it rests."""
        sink = self.destination(tls=tls)
        running = self.service(sink, smtp_connection_reuse_time_limit="1s", **RESTS)
        sent = inject(running.start(), [letter("O1"), letter("O2"), letter("O3")], connections=1).accepted
        self.arrived(sink, sent)
        until(lambda: not sink.open, lambda: f"{len(sink.open)} connections are open")
        self.assertEqual(sink.quits, sink.connections)
        self.undisturbed(running, sink)

    def test_reuse_time_is_over(self) -> None:
        """The server sees QUIT, though the session was in use a moment before."""
        self.worn_out(tls=False)
        self.worn_out(tls=True)

    def test_injected_behind_starttls(self) -> None:
        """Plaintext that came with the reply to STARTTLS: nothing is sent there, not even without TLS."""
        sink = self.destination(tls=True)
        sink.manners.injects = True
        running = self.service(sink, smtp_tls_security_level="may", minimal_backoff_time="1s")
        sent = inject(running.start(), [letter("J1")]).accepted
        until(lambda: running.log().count("status=deferred") >= 3, running.log)
        self.assertIn("dsn=4.7.5", running.maillog("status=deferred")[0])
        self.assertEqual(sink.taken, [])
        sink.manners.injects = False
        self.arrived(sink, sent)
        self.assertEqual([taken.encrypted for taken in sink.taken], [True])

    def policies(self, policy: str, *, shared: bool) -> None:
        """One nexthop has the level C{may}, the other one, at the same address, this policy."""
        sink = self.destination(tls=True)
        other = f"[localhost]:{sink.port}"
        running = self.service(
            sink, transport_maps=f"inline:{{ {{ example.com = smtp:{other} }} }}",
            smtp_tls_security_level="may", smtp_tls_policy_maps=f"inline:{{ {{ {other} = {policy} }} }}",
            inet_protocols="ipv4", **RESTS,
        )  # fmt: skip
        running.start()
        for number, recipient in enumerate(("to@example.test", "to@example.com") * 3):
            self.arrived(sink, inject(running.port, [letter(f"P{number}", recipients=(recipient,))]).accepted)
            until(lambda: {row["state"] for row in running.ask("sessions")} == {"resting"}, running.log)
        self.undisturbed(running, sink)
        self.assertEqual(sink.connections, 1 if shared else 2)
        used = {(taken.recipient, taken.connection) for taken in sink.taken}
        self.assertEqual(len(used), 2)
        self.assertEqual({taken.encrypted for taken in sink.taken}, {True, policy != "none"})

    def test_policies_of_one_address(self) -> None:
        """Two nexthops at one address share a session where their policies ask for the same handshake, else never."""
        self.policies("may protocols=>=TLSv1.3", shared=False)
        self.policies("none", shared=False)
        self.policies("encrypt", shared=True)
