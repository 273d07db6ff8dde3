"""
The service while somebody sets the wall clock: by C{faketime}, which shows it another time of day and leaves alone what
the machine measures.
"""

from __future__ import annotations

import glob
import json
import re
import signal
import socket
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

from tests.peers import missing
from tests.service import LIMIT, Service, environment, until
from tests.system.injection import Injection, inject, letter
from tests.system.world import SystemTestCase

# Where Debian and others have it.
_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1")
_CLOCKS = "import time; print(time.time() - %r, time.clock_gettime(time.CLOCK_BOOTTIME) - %r)"


class Wall:
    """A wall clock of the test's."""

    def __init__(self, directory: Path) -> None:
        """
        @raise Exception: L{missing}, when there is no faketime, or one that touches more than the wall clock.
        """
        libraries = [path for pattern in _LIBRARIES for path in glob.glob(pattern)]
        if not libraries:
            raise missing("faketime (as root, tests/peers/install fetches it)")
        self._file = directory / "wall"
        self.set(0)
        self._variables = {
            "LD_PRELOAD": libraries[0], "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
        }  # fmt: skip
        self.set(86400)
        program = _CLOCKS % (time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))
        seen = subprocess.run(
            [*self.under, sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT, check=True
        )
        wall, passed = map(float, seen.stdout.split())
        if not (wall > 80000 and passed < 80000):
            raise missing("a faketime that changes the wall clock and nothing else")
        self.set(0)

    @property
    def under(self) -> tuple[str, ...]:
        """The command line of what runs a program by this clock."""
        return ("env", *(f"{name}={value}" for name, value in self._variables.items()))

    def set(self, ahead: int) -> None:
        """
        Set it, for programs that start.

        @param ahead: seconds, of the true time; below 0 it is behind.
        """
        scratch = self._file.with_name("wall.new")
        scratch.write_text(f"{ahead:+d}\n")
        scratch.rename(self._file)

    def reset(self, running: Service, ahead: int) -> None:
        """Set it, and wait until this service sees it: faketime looks once a second."""
        self.set(ahead)
        until(lambda: abs(self._seen(running) - time.time() - ahead) < 60, lambda: "the wall clock was not set")

    def _seen(self, running: Service) -> float:
        """The wall clock as the service sees it: HTTP answers have a date."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(LIMIT)
            control.connect(str(running.control))
            control.sendall(b"HEAD /status HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: control.recv(4096), b"")).decode()
        (date,) = re.findall(r"^Date: (.*)\r$", answer, re.MULTILINE | re.IGNORECASE)
        return parsedate_to_datetime(date).timestamp()


class ClockTests(SystemTestCase):
    """Whatever is done to the wall clock, mail goes on."""

    def started(self, running: Service) -> Wall:
        """The wall clock of this service, which is started by it."""
        made = Wall(running.directory)
        # faketime and coverage together are slow; what runs here is counted elsewhere.
        running.measured = False
        running.start(under=made.under)
        return made

    def sink(self) -> tuple[subprocess.Popen[str], str]:
        """C{smtpreuse sink} with TLS, and its address."""
        command = [sys.executable, "-m", "smtpreuse.cli.main", "sink", "--tls", "required"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        self.addCleanup(self.ended, process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())["listening"]

    def ended(self, process: subprocess.Popen[str]) -> None:
        """End a sink."""
        process.terminate()
        process.communicate(timeout=LIMIT)

    def counted(self, process: subprocess.Popen[str]) -> dict[str, int]:
        """What the sink has counted so far."""
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        counts: dict[str, int] = json.loads(process.stdout.readline())
        return counts

    def delivered(self, running: Service, count: int) -> None:
        """Wait until the log has as many deliveries."""
        until(
            lambda: running.log().count("status=sent") >= count, lambda: running.log()[-3000:],
            progress=lambda: running.log().count("status=sent"),
        )  # fmt: skip

    def test_set_while_mail_flows(self) -> None:
        """
        An hour forward, then two hours back: all is delivered once, no conversation times out, no site is suspended, a
        session that rests is still there, and what is deferred is tried again after its backoff.
        """
        process, address = self.sink()
        down = self.destination()
        down.stop()
        running = self.service(
            relayhost=f"[127.0.0.1]:{address.rpartition(':')[2]}",
            transport_maps=f"inline:{{ {{ down.test = smtp:{down.relayhost} }} }}",
            smtp_connection_cache_destinations="127.0.0.1", smtp_connection_cache_time_limit="10m",
            minimal_backoff_time="2s", maximal_backoff_time="2s",
        )  # fmt: skip
        wall = self.started(running)
        waits = inject(running.port, [letter("D", recipients=("to@down.test",))]).accepted
        until(lambda: "status=deferred" in running.log(), running.log)
        flow = Injection(running.port, [letter(f"C{number}") for number in range(500)], 3).start()
        for answered, ahead in ((150, 3600), (300, -3600)):
            until(lambda answered=answered: flow.answered >= answered, lambda: f"{flow.answered} answered")  # type: ignore[misc]  # a default
            wall.reset(running, ahead)
        self.assertEqual((len(flow.finish().accepted), flow.lost), (500, 0))
        self.delivered(running, 500)
        counts = self.counted(process)
        self.assertEqual((counts["messages"], counts["doubled"]), (500, 0))
        down.start()
        self.arrived(down, waits)
        self.empty(running)
        # Rested for two hours by the wall clock, and for some moments by what has passed.
        wall.reset(running, 3600)
        for number in range(5):
            inject(running.port, [letter(f"R{number}")])
            self.delivered(running, 502 + number)
        after = self.counted(process)
        self.assertEqual((after["messages"], after["connections"]), (505, counts["connections"]))
        deferred = [line for line in running.maillog("status=deferred") if "down.test" not in line]
        self.assertEqual(deferred, [])
        suspended = [line for line in running.printed().splitlines() if "suspended" in line and "127.0.0.1" in line]
        self.assertEqual([line for line in suspended if str(down.port) not in line], [])

    def test_people_read_the_wall(self) -> None:
        """The log, the header field and the queue show the wall's time; ages and delays what has passed."""
        down = self.destination()
        running = self.service(down)
        wall = self.started(running)
        down.stop()
        inject(running.port, [letter("A")])
        until(lambda: "status=deferred" in running.log(), running.log)
        (before,) = running.ask("queue", "list")
        wall.reset(running, -7200)
        (after,) = running.ask("queue", "list")
        times = [row["arrival_time"] for row in (before, after)]
        assert isinstance(times[0], float) and isinstance(times[1], float)
        self.assertLess(abs(times[0] - times[1] - 7200), 2)
        inject(running.port, [letter("B")])
        *_, last_row = running.ask("queue", "list")
        (shown,) = running.ask("queue", "show", str(last_row["queue_id"]))
        date = re.search(r"^Received: [^;]*; (.*)$", str(shown["headers"]), re.MULTILINE)
        assert date is not None, shown
        self.assertLess(abs(parsedate_to_datetime(date[1]).timestamp() - time.time() + 7200), 300)
        down.start()
        until(lambda: running.log().count("status=sent") == 2, running.log)
        first, last = running.maillog()[0], running.maillog("status=sent")[-1]
        # Local time may be anybody's; a minute may end, and with it an hour.
        hours = [int(line.split()[2][:2]) for line in (first, last)]
        self.assertIn((hours[0] - hours[1]) % 24, (1, 2), (first, last))
        delay = re.search(r", delay=([0-9.]+),", last)
        assert delay is not None
        self.assertLess(float(delay[1]), 3600)

    def test_restart(self) -> None:
        """
        The clock is set a month ahead, and the service started anew: what is deferred is not too old for that, and is
        tried again after its backoff.
        """
        down = self.destination()
        down.stop()
        running = self.service(down, maximal_queue_lifetime="5d", bounce_queue_lifetime="5d")
        wall = self.started(running)
        waits = inject(running.port, [letter("B")]).accepted
        for ahead in (30 * 86400, -30 * 86400):
            tried = running.log().count("status=deferred")
            until(lambda tried=tried: running.log().count("status=deferred") > tried, running.log)  # type: ignore[misc]  # a default
            wall.reset(running, ahead)
            running.restart()
        tried = running.log().count("status=deferred")
        until(lambda: running.log().count("status=deferred") > tried, running.log)
        self.assertNotIn("status=expired", running.log())
        down.start()
        self.arrived(down, waits)

    def test_log_of_twistd(self) -> None:
        """Of two lines of twistd's log with a clock set between them, the second shows the wall's new time."""
        running = self.service()
        wall = self.started(running)
        wall.reset(running, 3 * 86400)
        running.stop()
        dates = [line.split()[0] for line in running.printed().splitlines() if re.match(r"\d{4}-\d\d-\d\dT", line)]
        self.assertNotEqual(dates[0][:10], dates[-1][:10])
