"""
How the service ends, and what its signals do.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

from tests.service import until
from tests.system.injection import Injection, Letter, inject, letter, letters
from tests.system.world import SystemTestCase


class ShutdownTests(SystemTestCase):
    """SIGTERM drains: what is under way ends, nothing is lost or doubled, and the status is 0."""

    def test_drains(self) -> None:
        """In the middle of mail coming in and going out; the rest goes after the next start."""
        sink = self.destination(tls=True)
        running = self.service(sink)
        sent: list[Letter] = []

        def endless() -> Iterator[Letter]:
            for each in letters("D"):
                sent.append(each)
                yield each

        injection = Injection(running.start(), endless()).start()
        until(lambda: len(sink.taken) >= 200, lambda: f"{len(sink.taken)} arrived")
        self.assertEqual(running.stop(), 0)
        injection.finish()
        # Either said before the next MAIL, or that MAIL's reply.
        self.assertTrue(all(reply.startswith("421 4.3.2") for reply in injection.refused), injection.refused)
        until(lambda: not sink.open, lambda: f"{len(sink.open)} connections are open")
        self.assertEqual(sink.quits, sink.connections)
        running.start()
        self.arrived(sink, injection.accepted)
        self.empty(running)
        self.check_whole(sink, sent)
        self.check_single(sink)

    def test_resting_sessions_quit(self) -> None:
        """Sessions that rest are told QUIT."""
        sink = self.destination()
        running = self.service(sink, smtp_connection_cache_destinations="127.0.0.1")
        sent = inject(running.start(), [letter("R1")]).accepted
        self.arrived(sink, sent)
        until(
            lambda: [row["state"] for row in running.ask("sessions")] == ["resting"],
            lambda: f"no session rests: {running.ask('sessions')}",
        )
        self.assertEqual(running.stop(), 0)
        self.assertEqual((sink.connections, sink.quits), (1, 1))

    def test_stalled_destination(self) -> None:
        """
        A destination that does not answer delays the end no longer than shutdown_timeout; its mail is kept, and the log
        says what is known of it.
        """
        sink = self.destination(stalls=True)
        running = self.service(sink, shutdown_timeout="1s")
        sent = inject(running.start(), [letter("S1"), letter("S2")]).accepted
        until(lambda: sink.stalled == 2, lambda: f"{sink.stalled} messages are held")
        running.send_signal(signal.SIGTERM)
        # smtp_data_done_timeout would be ten minutes.
        self.assertEqual(running.wait(30), 0)
        told = running.maillog("status=deferred")
        self.assertEqual(len(told), 2, running.log())
        for line in told:
            self.assertIn("ended with this service while sending end of data -- message may be sent more than", line)
        for fault in ("Traceback", "not written", "cannot be recorded"):
            self.assertNotIn(fault, running.printed())
        sink.manners.stalls = False
        running.start()
        self.arrived(sink, sent)
        self.empty(running)

    def test_silent_destination(self) -> None:
        """One that has not even greeted likewise: nothing was sent, so nothing has become of its mail."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            running = self.service(relayhost=f"[127.0.0.1]:{silent.getsockname()[1]}", shutdown_timeout="1s")
            inject(running.start(), [letter("N1")])
            connection, _ = silent.accept()
            with connection:
                running.send_signal(signal.SIGTERM)
                self.assertEqual(running.wait(30), 0)
        self.assertEqual(running.maillog("status="), [])
        for fault in ("Traceback", "not written", "cannot be recorded"):
            self.assertNotIn(fault, running.printed())
        sink = self.destination()
        running.configure(relayhost=sink.relayhost)
        running.start()
        until(lambda: len(sink.taken) == 1, running.log)

    def test_stalled_client(self) -> None:
        """A client in the middle of a message delays the end no longer than that either, idle ones not at all."""
        running = self.service(self.destination(), shutdown_timeout="1s")
        running.start()
        with (
            socket.create_connection(running.address, 60) as idle,
            socket.create_connection(running.address, 60) as busy,
        ):
            idle.recv(1000)
            busy.recv(1000)
            busy.sendall(b"HELO x\r\n")
            busy.recv(1000)
            busy.sendall(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
            got = b""
            while b"354" not in got:
                got += busy.recv(1000)
            busy.sendall(b"half a message\r\n")
            running.send_signal(signal.SIGTERM)
            self.assertTrue(idle.recv(1000).startswith(b"421 4.3.2 "))
            self.assertEqual(running.wait(30), 0)
        self.assertEqual(list((running.directory / "spool" / "content").iterdir()), [])

    def test_at_once_and_twice(self) -> None:
        """SIGTERM works from the line on that says that it is ready, and a second one changes nothing."""
        running = self.service(self.destination())
        running.start()
        running.send_signal(signal.SIGTERM)
        running.send_signal(signal.SIGTERM)
        self.assertEqual(running.wait(), 0)
        self.assertNotIn("Traceback", running.printed())


class SignalTests(SystemTestCase):
    """Signals that do not end it."""

    def test_log_reopened(self) -> None:
        """After SIGUSR1 lines go to a new file of the old name, and none is lost."""
        sink = self.destination()
        running = self.service(sink)
        sent = inject(running.start(), [letter("U1")]).accepted
        until(lambda: "removed" in running.log(), running.log)
        rotated = running.directory / "maillog.1"
        (running.directory / "maillog").rename(rotated)
        running.send_signal(signal.SIGUSR1)
        until(lambda: (running.directory / "maillog").exists(), running.printed)
        sent |= inject(running.port, [letter("U2")]).accepted
        until(lambda: "removed" in running.log(), running.log)
        for text in (rotated.read_text(), running.log()):
            self.assertEqual(text.count("status=sent"), 1)
            self.assertTrue(text.endswith("removed\n"))

    def test_hang_up(self) -> None:
        """SIGHUP does not end it."""
        sink = self.destination()
        running = self.service(sink)
        running.start()
        running.send_signal(signal.SIGHUP)
        self.arrived(sink, inject(running.port, [letter("H1")]).accepted)
