"""
Another configuration while the service works, and the end of a service, as an operator has them.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping

from tests.service import LIMIT, Service, environment, until
from tests.system.destination import Destination
from tests.system.injection import Injection, Letter, inject, letter, letters
from tests.system.world import QUICK, SystemTestCase

# So that sessions rest until something ends them.
RESTS = {"smtp_connection_cache_destinations": "127.0.0.1, localhost", "smtp_connection_cache_time_limit": "1h"}
RELOADED = '{"reloaded":true,"next_start":[]}\n'


class ReloadTests(SystemTestCase):
    """What begins after a reload goes by what is in the file then."""

    def configure(self, running: Service, own: Mapping[str, str], **values: str) -> None:
        """Write its file as it was, with these values."""
        running.configure(**{**QUICK, **own, **values})

    def reload(self, running: Service) -> None:
        """Have it done, with success."""
        ended = self.run_command(running, "reload", "--json")
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, RELOADED, ""))

    def rests(self, running: Service, count: int = 1) -> None:
        """Wait until so many sessions rest, and no other is there."""
        until(
            lambda: [row["state"] for row in running.ask("sessions")] == ["resting"] * count,
            lambda: f"not so many rest: {running.ask('sessions')}",
        )

    def gone(self, sink: Destination, quits: int) -> None:
        """Wait until the destination was told QUIT so often, and no connection is open."""
        until(
            lambda: sink.quits == quits and not sink.open,
            lambda: f"{sink.quits} were told QUIT, {len(sink.open)} are open",
        )

    def deliver(self, running: Service, sink: Destination, *names: str) -> None:
        """These messages arrive."""
        self.arrived(sink, inject(running.port, [letter(name) for name in names], 1).accepted)

    def test_stronger_level(self) -> None:
        """A resting session that proved too little is told QUIT, and the next message is encrypted or waits."""
        sink = self.destination()
        own = {"relayhost": sink.relayhost, **RESTS}
        running = self.service(sink, **RESTS)
        running.start()
        self.deliver(running, sink, "L1", "L2")
        self.rests(running)
        self.configure(running, own, smtp_tls_security_level="encrypt")
        self.reload(running)
        self.gone(sink, quits=1)
        sent = inject(running.port, [letter("L3")]).accepted
        until(lambda: running.maillog("status=deferred") != [], running.log)
        self.assertIn("TLS is required, but was not offered", running.maillog("status=deferred")[0])
        self.assertEqual(len(sink.taken), 2)
        self.configure(running, own, smtp_tls_security_level="may")
        self.reload(running)
        self.arrived(sink, sent)
        self.check_single(sink)

    def test_policy_of_one_nexthop(self) -> None:
        """A policy for one nexthop ends the sessions of that one, and leaves the others."""
        sink = self.destination(tls=True)
        other = f"[localhost]:{sink.port}"
        own = {
            "relayhost": sink.relayhost, "transport_maps": f"inline:{{ {{ example.com = smtp:{other} }} }}",
            "inet_protocols": "ipv4", "smtp_tls_security_level": "none", **RESTS,
        }  # fmt: skip
        running = self.service(sink, **own)
        running.start()
        for number, recipient in enumerate(("to@example.test", "to@example.com")):
            self.arrived(sink, inject(running.port, [letter(f"P{number}", recipients=(recipient,))]).accepted)
            self.rests(running)
        # Both nexthops have used the one session; the last one it served is the one that asks for more now.
        self.configure(running, own, smtp_tls_policy_maps=f"inline:{{ {{ {other} = encrypt }} }}")
        self.reload(running)
        self.gone(sink, quits=1)
        for number, recipient in enumerate(("to@example.com", "to@example.test"), 2):
            self.arrived(sink, inject(running.port, [letter(f"P{number}", recipients=(recipient,))]).accepted)
        self.assertEqual([taken.encrypted for taken in sink.taken], [False, False, True, False])
        self.rests(running, 2)
        self.reload(running)
        self.rests(running, 2)

    def test_other_way(self) -> None:
        """Mail that waits in the queue goes by the new relayhost at its next attempt; SIGHUP does it too."""
        dead, sink = self.destination(), self.destination()
        dead.stop()
        own = {"minimal_backoff_time": "1h", "maximal_backoff_time": "1h"}
        running = self.service(dead, **own)
        sent = inject(running.start(), list(itertools.islice(letters("W"), 30))).accepted
        until(lambda: self.queue(running)["deferred"] > 0, lambda: str(self.queue(running)))
        self.configure(running, own, relayhost=sink.relayhost)
        running.send_signal(signal.SIGHUP)
        until(lambda: "reloaded: " in running.printed(), running.printed)
        self.assertEqual({row["site"] for row in running.ask("queue", "list")}, {sink.relayhost})
        running.ask("queue", "flush")
        self.arrived(sink, sent)
        self.empty(running)
        self.check_single(sink)

    def test_bad_file(self) -> None:
        """Nothing changes, mail goes on, and each problem is told: by the command, and in the service's log."""
        sink = self.destination()
        running = self.service(sink)
        running.start()
        self.deliver(running, sink, "B1")
        wrong = {"smtp_tls_security_level": "sometimes", "smtp_tls_policy_maps": "inline:{ {a.test = perhaps} }"}
        running.configure(relayhost="[127.0.0.1]:1", **wrong)
        ended = self.run_command(running, "reload", "--json")
        problems = json.loads(ended.stdout)["problems"]
        self.assertEqual((ended.returncode, json.loads(ended.stdout)["reloaded"]), (1, False))
        self.assertEqual((len(problems), ended.stderr), (2, "".join(f"{problem}\n" for problem in problems)))
        self.assertIn(f"{running.directory}/main.cf:6: smtp_tls_security_level: ", ended.stderr)
        running.send_signal(signal.SIGHUP)
        for problem in problems:
            until(lambda text=problem: running.printed().count(f"not reloaded: {text}\n") == 2, running.printed)
        self.deliver(running, sink, "B2")
        (running.directory / "main.cf").unlink()
        ended = self.run_command(running, "reload", "-o", f"control_socket={running.control}")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("main.cf: cannot be read (No such file or directory)", ended.stderr)
        self.deliver(running, sink, "B3")

    def test_next_start(self) -> None:
        """What takes effect at the next start is named, and does then."""
        sink = self.destination()
        running = self.service(sink)
        running.start()
        own = {"relayhost": sink.relayhost, "control_socket": "other"}
        self.configure(running, own)
        ended = self.run_command(running, "reload", "-o", f"control_socket={running.control}")
        expected = "configuration read again\ncontrol_socket: takes effect at the next start\n"
        self.assertEqual((ended.returncode, ended.stdout), (0, expected))
        self.assertIn(f"control_socket: takes effect at the next start: {running.directory}/other", running.printed())
        self.assertTrue(running.control.exists())
        running.restart()
        self.deliver(running, sink, "N1")
        self.assertTrue((running.directory / "other").exists())

    def test_under_load(self) -> None:
        """Fifty reloads while twenty clients hand in mail: none is turned away, and no message is lost or doubled."""
        sink = self.destination(tls=True)
        own = {"relayhost": sink.relayhost}
        running = self.service(sink)
        endless = letters("R")
        stop = False

        def mail() -> Iterator[Letter]:
            while not stop:
                yield next(endless)

        injection = Injection(running.start(), mail(), 20).start()
        try:
            for number in range(50):
                level, name = ("may", "encrypt")[number % 2], f"{'ab'[number // 2 % 2]}.test"
                values = {"smtp_tls_security_level": level, "smtp_helo_name": name}
                if number % 5 == 0:
                    values["transport_maps"] = f"inline:{{ {{ example.com = smtp:[localhost]:{sink.port} }} }}"
                    values["inet_protocols"] = "ipv4"
                self.configure(running, own, **values)
                answered = injection.answered
                running.send_signal(signal.SIGHUP)
                with socket.create_connection(running.address, LIMIT) as client:
                    self.assertEqual(client.recv(4), b"220 ")
                until(lambda count=number: running.printed().count("reloaded: ") > count, running.printed)
                until(
                    lambda count=answered: injection.answered > count + 20 or not injection.under_way,
                    lambda: f"{injection.answered} answers",
                )
        finally:
            stop = True
        injection.finish()
        self.assertEqual((injection.refused, injection.lost), ([], 0))
        self.assertGreater(len(injection.accepted), 1000)
        self.arrived(sink, injection.accepted)
        self.empty(running)
        self.check_single(sink)
        self.check_whole(sink, injection.accepted.values())
        self.assertEqual(running.maillog("status=deferred"), [])


class DrainTests(SystemTestCase):
    """C{smtpreuse drain} is what SIGTERM is, and says when it is over."""

    def draining(self, running: Service) -> subprocess.Popen[str]:
        """The command runs."""
        command = [sys.executable, "-m", "smtpreuse.cli.main", "drain", "--json"]
        command += ["--config", str(running.directory / "main.cf")]
        return subprocess.Popen(
            command, cwd=running.directory, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def test_under_load(self) -> None:
        """What is under way ends, nothing is lost, and when the command returns another service may begin at once."""
        sink = self.destination(tls=True)
        running = self.service(sink)
        injection = Injection(running.start(), letters("D")).start()
        until(lambda: len(sink.taken) >= 200, lambda: f"{len(sink.taken)} arrived")
        out, err = self.draining(running).communicate(timeout=LIMIT)
        answer = json.loads(out)
        self.assertEqual((answer["drained"], list(answer), err), (True, ["drained", "seconds"], ""))
        lock = os.open(running.directory / "spool" / "lock", os.O_RDWR)
        self.addCleanup(os.close, lock)
        os.lockf(lock, os.F_TEST, 0)
        self.assertEqual(running.wait(), 0)
        injection.finish()
        self.assertTrue(all(reply.startswith("421 4.3.2") for reply in injection.refused), injection.refused)
        running.start()
        self.arrived(sink, injection.accepted)
        self.empty(running)
        self.check_single(sink)

    def test_reload_meanwhile(self) -> None:
        """While it drains that is its state, and a reload is refused, with the reason."""
        sink = self.destination(stalls=True)
        running = self.service(sink, shutdown_timeout="1h")
        inject(running.start(), [letter("M1")])
        until(lambda: sink.stalled == 1, lambda: "the message did not come")
        command = self.draining(running)
        until(lambda: running.ask("status")[0]["state"] == "draining", running.printed)
        self.assertEqual(self.run_command(running, "status", "--ready").returncode, 1)
        running.configure(soft_bounce="yes")
        ended = self.run_command(running, "reload", "--json")
        problem = "the service is about to end: the configuration is read at its next start"
        self.assertEqual((ended.returncode, ended.stderr), (1, f"{problem}\n"))
        self.assertEqual(json.loads(ended.stdout), {"reloaded": False, "problems": [problem]})
        running.send_signal(signal.SIGHUP)
        until(lambda: running.printed().count(f"not reloaded: {problem}") == 2, running.printed)
        self.assertIsNone(command.poll())
        sink.stop()
        self.assertTrue(command.communicate(timeout=LIMIT)[0].startswith('{"drained":true,'))
        self.assertEqual(running.wait(), 0)

    def test_not_there(self) -> None:
        """Where there is no service there is nothing to drain or to reload."""
        running = self.service(self.destination())
        for word in ("drain", "reload"):
            ended = self.run_command(running, word, "--json")
            self.assertEqual((ended.returncode, ended.stdout), (69, ""))
            self.assertEqual(ended.stderr.count("\n"), 1)
