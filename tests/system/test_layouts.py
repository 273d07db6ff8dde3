"""
Roles in processes of their own: the same mail in every layout, and what happens when one of them is killed.
"""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

from tests.service import Service, until
from tests.system.injection import inject, letter, letters
from tests.system.world import SystemTestCase

FAST = {"smtp_processes": "2", "tlsproxy_processes": "0", "scache_processes": "1"}
ISOLATED = {"smtp_processes": "1", "tlsproxy_processes": "1", "scache_processes": "1"}
LAYOUTS = (
    {"smtp_processes": "1", "tlsproxy_processes": "0", "scache_processes": "0"},
    FAST,
    ISOLATED,
    {"smtp_processes": "0", "tlsproxy_processes": "1", "scache_processes": "1"},
)
RESTS = {"smtp_connection_cache_destinations": "127.0.0.1, localhost", "smtp_connection_cache_time_limit": "1h"}


def children(running: Service) -> dict[str, int]:
    """Process ids of the service's other processes, by the names that C{ps} shows."""
    found: dict[str, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            command = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")[0].decode()
        except (OSError, IndexError):
            continue
        if parent == running.pid and command.startswith("smtpreuse: "):
            found[command.removeprefix("smtpreuse: ")] = int(name)
    return found


class LayoutTests(SystemTestCase):
    """Where a role has its process makes no difference to the mail."""

    def test_each(self) -> None:
        """All messages arrive once, over TLS that is reused, and no process is left when the service ends."""
        for layout in LAYOUTS:
            sink = self.destination(tls=True)
            running = self.service(sink, **layout)
            sent = inject(running.start(), list(itertools.islice(letters("L"), 150))).accepted
            names = children(running)
            self.assertEqual(len(names), sum(map(int, layout.values())), names)
            self.arrived(sink, sent)
            self.empty(running)
            self.check_single(sink)
            self.assertEqual(running.maillog("status=deferred"), [])
            self.assertLess(sink.connections, 75)
            self.assertEqual(running.stop(), 0)
            self.assertEqual([pid for pid in names.values() if Path(f"/proc/{pid}").exists()], [])

    def test_status(self) -> None:
        """The operator sees every process, and the sessions of all of them."""
        sink = self.destination(tls=True)
        running = self.service(sink, **ISOLATED, **RESTS)
        self.arrived(sink, inject(running.start(), [letter("S1")]).accepted)
        until(lambda: running.ask("sessions"), running.log)
        (session,) = running.ask("sessions")
        (status,) = running.ask("status")
        found = {role["name"]: role["pid"] for role in status["roles"]}
        self.assertEqual(found, {"smtpreuse": running.pid, **children(running)})
        self.assertEqual((session["state"], session["process"]), ("resting", found["scache 1"]))

    def test_reloaded(self) -> None:
        """Other settings hold in every process: what rests is not what they ask for, so a new connection is made."""
        sink = self.destination(tls=True)
        parameters = {"relayhost": sink.relayhost, "smtp_tls_security_level": "may", **ISOLATED, **RESTS}
        running = self.service(None, **parameters, smtp_helo_name="first.example.com")
        self.arrived(sink, inject(running.start(), [letter("R1")]).accepted)
        until(lambda: running.ask("sessions"), running.log)
        running.configure(**parameters, smtp_helo_name="second.example.com")
        (reloaded,) = running.ask("reload")
        self.assertEqual(reloaded, {"reloaded": True, "next_start": []})
        self.arrived(sink, inject(running.port, [letter("R2")]).accepted)
        self.empty(running)
        self.assertEqual((sink.connections, running.maillog("reused")), (2, []))
        self.check_single(sink)

    def test_large(self) -> None:
        """A message that is too large for memory gets to an agent that cannot read the queue's files."""
        sink = self.destination(tls=True)
        running = self.service(sink, **ISOLATED)
        large = letter("G1", size=700_000)
        self.arrived(sink, inject(running.start(), [large]).accepted)
        self.check_whole(sink, [large])
        self.empty(running)

    def test_travels(self) -> None:
        """A session outlives the agent that opened it: its successor delivers over it, on the same connection."""
        sink = self.destination(tls=True)
        running = self.service(sink, **ISOLATED, **RESTS)
        self.arrived(sink, inject(running.start(), [letter("T1")]).accepted)
        until(lambda: [row for row in running.ask("sessions") if row["state"] == "resting"], running.log)
        os.kill(children(running)["smtp 1"], signal.SIGKILL)
        until(lambda: "smtp 2" in children(running), running.log)
        self.arrived(sink, inject(running.port, [letter("T2")]).accepted)
        self.empty(running)
        self.assertEqual(sink.connections, 1)
        (opened,), (reused,) = running.maillog("TLS connection established"), running.maillog("TLS connection reused")
        self.assertEqual(opened.partition("established")[2], reused.partition("reused")[2])
        self.assertEqual(len(running.maillog("conn_use=2")), 1)

    def test_parent_killed(self) -> None:
        """Without their parent the other processes end."""
        running = self.service(self.destination(tls=True), **ISOLATED)
        running.start()
        pids = children(running).values()
        running.kill()
        until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], lambda: f"{list(pids)} live")

    def killed(self, role: str, number: signal.Signals) -> None:
        """One of the processes gets a signal in the middle of mail."""
        sink = self.destination(tls=True)
        running = self.service(sink, **ISOLATED, minimal_backoff_time="1s", role_watchdog_timeout="3s")
        mail = list(itertools.islice(letters("K"), 400))
        running.start()
        sent = dict(inject(running.port, mail[:200]).accepted)
        os.kill(children(running)[f"{role} 1"], number)
        sent.update(inject(running.port, mail[200:]).accepted)
        self.arrived(sink, sent)
        self.empty(running)
        self.assertEqual(running.maillog("suspended"), [])
        until(lambda: len(children(running)) == 3, running.log)
        self.assertEqual(running.stop(), 0)

    def test_killed(self) -> None:
        """Whichever process is killed, no message is lost, no site is blamed, and it has a successor."""
        for role in ("smtp", "tlsproxy", "scache"):
            self.killed(role, signal.SIGKILL)

    def test_stopped(self) -> None:
        """One that does not answer is killed and replaced; no message is lost."""
        for role in ("smtp", "tlsproxy", "scache"):
            self.killed(role, signal.SIGSTOP)
