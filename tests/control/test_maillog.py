"""
Tests of L{smtpreuse.control.maillog}.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.control import maillog
from smtpreuse.control.maillog import MailLog
from smtpreuse.interfaces import IMailLog

# Sat Nov 21 22:20:18 2026 UTC
MOMENT = 1795299618.75
_WRITE = os.write


class MailLogTestCase(SynchronousTestCase):
    """A log in a file, in the zone of UTC."""

    def setUp(self) -> None:
        self.zone("UTC")
        self.clock = Clock()
        self.clock.advance(MOMENT)
        self.path = self.mktemp()

    def zone(self, name: str) -> None:
        """Set the local time zone, for this test."""
        before = os.environ.get("TZ")

        def restore() -> None:
            if before is None:
                del os.environ["TZ"]
            else:
                os.environ["TZ"] = before
            time.tzset()

        self.addCleanup(restore)
        os.environ["TZ"] = name
        time.tzset()

    def log(self, *, iso: bool = False) -> MailLog:
        """A log that is closed after the test."""
        log = MailLog(self.clock, self.path, "mail", iso=iso, pid=lambda: 4321, wall=self.clock.seconds)
        self.addCleanup(log.close)
        return log

    def text(self) -> str:
        """What the file holds."""
        with open(self.path, encoding="utf-8") as file:
            return file.read()

    def events(self) -> list[LogEvent]:
        """The list that events go to from now on."""
        seen: list[LogEvent] = []
        globalLogPublisher.addObserver(seen.append)
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)
        return seen


class HeaderTests(MailLogTestCase):
    """Every line begins as syslog's do."""

    def test_interface(self) -> None:
        """It is an operator's log."""
        self.assertTrue(verifyObject(IMailLog, self.log()))

    def test_syslog(self) -> None:
        """The header is syslog's: month, day, time, host, program and pid."""
        self.log().write("smtp", "4Aa: removed")
        self.clock.advance(0)
        self.assertEqual(self.text(), "Nov 21 22:20:18 mail smtpreuse/smtp[4321]: 4Aa: removed\n")

    def test_day(self) -> None:
        """A day below 10 is padded with a space."""
        self.clock.advance(86400 * 10 + 3600 * 2)
        self.log().write("qmgr", "4Aa: removed")
        self.clock.advance(0)
        self.assertEqual(self.text(), "Dec  2 00:20:18 mail smtpreuse/qmgr[4321]: 4Aa: removed\n")

    def test_iso(self) -> None:
        """With C{iso} the time is RFC 3339's, in the local zone."""
        self.zone("IST-05:30")
        self.log(iso=True).write("smtp", "4Aa: removed")
        self.clock.advance(0)
        self.assertEqual(self.text(), "2026-11-22T03:50:18+05:30 mail smtpreuse/smtp[4321]: 4Aa: removed\n")

    def test_iso_west(self) -> None:
        """West of Greenwich the zone is negative."""
        self.zone("NST+03:30")
        self.log(iso=True).write("smtp", "4Aa: removed")
        self.clock.advance(0)
        self.assertEqual(self.text(), "2026-11-21T18:50:18-03:30 mail smtpreuse/smtp[4321]: 4Aa: removed\n")

    def test_time_goes_on(self) -> None:
        """Each turn's lines have the time of the turn."""
        log = self.log()
        log.write("smtp", "first")
        self.clock.advance(0)
        log.write("smtp", "second")
        self.clock.advance(0.3)
        log.write("smtp", "third")
        self.clock.advance(1)
        self.assertEqual([line[7:15] for line in self.text().splitlines()], ["22:20:18", "22:20:18", "22:20:19"])

    def test_pid(self) -> None:
        """The pid is asked for when a line is written: the process forks before that."""
        pids = [1, 2]
        log = MailLog(self.clock, self.path, "mail", pid=lambda: pids[0], wall=self.clock.seconds)
        self.addCleanup(log.close)
        del pids[0]
        log.write("smtp", "x")
        self.clock.advance(0)
        self.assertEqual(self.text(), "Nov 21 22:20:18 mail smtpreuse/smtp[2]: x\n")

    def test_unprintable(self) -> None:
        """No peer can begin a line of its own, nor address the terminal."""
        self.log().write("smtp", "a\nNov 21 forged\r\x1b[2J\x00 \udcff grün")
        self.clock.advance(0)
        self.assertEqual(self.text(), "Nov 21 22:20:18 mail smtpreuse/smtp[4321]: a?Nov 21 forged??[2J? ? grün\n")


class WritingTests(MailLogTestCase):
    """Lines are written in their order, once per turn."""

    def test_once_per_turn(self) -> None:
        """Nothing is written in the turn itself, all with one call after it, and no call is left behind."""
        writes: list[bytes] = []
        self.patch(maillog.os, "write", lambda file, octets: (writes.append(bytes(octets)), _WRITE(file, octets))[1])
        log = self.log()
        for number in range(3):
            log.write("smtp", str(number))
        self.assertEqual((self.text(), len(self.clock.getDelayedCalls())), ("", 1))
        self.clock.advance(0)
        self.assertEqual(len(writes), 1)
        self.assertEqual([line[-1] for line in self.text().splitlines()], ["0", "1", "2"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_appends(self) -> None:
        """What the file held before stays."""
        with open(self.path, "w") as file:
            file.write("before\n")
        self.log().write("smtp", "x")
        self.clock.advance(0)
        self.assertEqual(self.text(), "before\nNov 21 22:20:18 mail smtpreuse/smtp[4321]: x\n")

    def test_mode(self) -> None:
        """The world cannot read who writes to whom."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.log()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_flush(self) -> None:
        """What was gathered can be written at once; the turn's end then has nothing to do."""
        log = self.log()
        log.write("smtp", "x")
        log.flush()
        self.assertEqual(self.text().count("\n"), 1)
        self.clock.advance(0)
        self.assertEqual(self.text().count("\n"), 1)

    def test_close(self) -> None:
        """At the end what was gathered is written."""
        log = MailLog(self.clock, self.path, "mail", wall=self.clock.seconds)
        log.write("smtp", "x")
        log.close()
        self.assertEqual(self.text().count("\n"), 1)

    def test_too_late(self) -> None:
        """A line that comes after the end is an error in the service's log, and in no other file."""
        log = MailLog(self.clock, self.path, "mail", wall=self.clock.seconds)
        log.close()
        with open(self.mktemp(), "wb") as other:
            events = self.events()
            log.write("smtp", "x")
            self.clock.advance(0)
            self.assertEqual(os.fstat(other.fileno()).st_size, 0)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.error])

    def test_cannot_open(self) -> None:
        """A file that cannot be opened is an error at once."""
        self.assertRaises(OSError, MailLog, self.clock, os.path.join(self.path, "missing"), "mail")

    def test_standard_output(self) -> None:
        """Without a file lines go to the descriptor of standard output, which is never closed."""
        writes: list[tuple[int, bytes]] = []
        self.patch(maillog.os, "write", lambda file, octets: (writes.append((file, bytes(octets))), len(octets))[1])
        self.patch(maillog.os, "close", lambda file: writes.append((file, b"closed")))
        log = MailLog(self.clock, "", "mail", pid=lambda: 4321, wall=self.clock.seconds)
        log.write("smtp", "x")
        log.reopen()
        log.close()
        self.assertEqual(writes, [(1, b"Nov 21 22:20:18 mail smtpreuse/smtp[4321]: x\n")])


class RotationTests(MailLogTestCase):
    """The file can be moved away."""

    def test_reopen(self) -> None:
        """Lines of before go to the file of before, lines of after to a new one."""
        log = self.log()
        log.write("smtp", "old")
        os.rename(self.path, f"{self.path}.1")
        log.reopen()
        log.write("smtp", "new")
        self.clock.advance(0)
        self.assertTrue(self.text().endswith(": new\n"))
        self.assertEqual(self.text().count("\n"), 1)
        self.path += ".1"
        self.assertTrue(self.text().endswith(": old\n"))

    def test_descriptors(self) -> None:
        """Reopening leaks nothing."""
        log = self.log()
        before = len(os.listdir("/proc/self/fd"))
        log.reopen()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_cannot_reopen(self) -> None:
        """When it cannot be opened anew the old file is kept, and the error logged."""
        directory = self.mktemp()
        os.mkdir(directory)
        self.path = os.path.join(directory, "log")
        log = self.log()
        os.rename(directory, f"{directory}.1")
        events = self.events()
        log.reopen()
        log.write("smtp", "x")
        self.clock.advance(0)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.error])
        self.path = f"{directory}.1/log"
        self.assertTrue(self.text().endswith(": x\n"))


class TroubleTests(MailLogTestCase):
    """A log that cannot be written stops nothing."""

    def fill(self, room: int) -> None:
        """From now on only so many octets can be written to the disk."""
        left = [room]

        def write(file: int, octets: bytes) -> int:
            if not left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = _WRITE(file, octets[: left[0]])
            left[0] -= written
            return written

        self.patch(maillog.os, "write", write)

    def test_said_once(self) -> None:
        """Of a full disk one event tells, however many lines are lost; another one when it has room again."""
        log = self.log()
        events = self.events()
        self.fill(0)
        for number in range(3):
            log.write("smtp", str(number))
            log.write("smtp", str(number))
            self.clock.advance(1)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.error])
        self.assertIn("No space left", events[0]["error"])
        self.assertEqual(events[0]["path"], self.path)
        self.fill(1000)
        log.write("smtp", "again")
        self.clock.advance(0)
        self.assertEqual([(event["log_level"], event.get("lost")) for event in events[1:]], [(LogLevel.warn, 6)])
        self.assertTrue(self.text().endswith("again\n"))
        self.assertEqual(self.text().count("\n"), 1)
        self.fill(0)
        log.write("smtp", "x")
        self.clock.advance(0)
        self.assertEqual(len(events), 3)

    def test_torn_line(self) -> None:
        """A line that was written in part is ended before the next one."""
        log = self.log()
        self.fill(10)
        log.write("smtp", "x")
        self.clock.advance(0)
        self.fill(1000)
        log.write("smtp", "y")
        log.write("smtp", "z")
        self.clock.advance(0)
        first, second, third = self.text().splitlines()
        self.assertEqual(first, "Nov 21 22:")
        self.assertEqual((second[-3:], third[-3:]), (": y", ": z"))

    def test_whole_lines(self) -> None:
        """Where the disk was full at a line's end there is no empty line."""
        log = self.log()
        line = "Nov 21 22:20:18 mail smtpreuse/smtp[4321]: x\n"
        self.fill(len(line))
        log.write("smtp", "x")
        log.write("smtp", "y")
        self.clock.advance(0)
        self.fill(1000)
        log.write("smtp", "z")
        self.clock.advance(0)
        self.assertEqual(self.text(), line + line.replace("x\n", "z\n"))

    def test_new_file_is_whole(self) -> None:
        """A torn line is left behind in the file of before."""
        log = self.log()
        self.fill(10)
        log.write("smtp", "x")
        self.clock.advance(0)
        os.rename(self.path, f"{self.path}.1")
        log.reopen()
        self.fill(1000)
        log.write("smtp", "y")
        self.clock.advance(0)
        self.assertEqual(self.text(), "Nov 21 22:20:18 mail smtpreuse/smtp[4321]: y\n")


class AdoptTests(MailLogTestCase):
    """Lines go elsewhere, or look different, from the next one on; none is lost or doubled."""

    def test_path(self) -> None:
        """What was written before is in the old file, what comes in the new one."""
        log = self.log()
        log.write("smtp", "one")
        other = self.mktemp()
        log.adopt(other, iso=False)
        log.write("smtp", "two")
        self.clock.advance(0)
        self.assertEqual(self.text(), "Nov 21 22:20:18 mail smtpreuse/smtp[4321]: one\n")
        self.path = other
        self.assertEqual(self.text(), "Nov 21 22:20:18 mail smtpreuse/smtp[4321]: two\n")
        log.reopen()
        log.write("smtp", "three")
        log.flush()
        self.assertIn("three", self.text())

    def test_form(self) -> None:
        """The time is written as is asked for, within the same second too."""
        log = self.log()
        log.write("smtp", "one")
        log.adopt(self.path, iso=True)
        log.write("smtp", "two")
        log.flush()
        self.assertEqual(self.text(), (
            "Nov 21 22:20:18 mail smtpreuse/smtp[4321]: one\n"
            "2026-11-21T22:20:18+00:00 mail smtpreuse/smtp[4321]: two\n"
        ))  # fmt: skip

    def test_cannot(self) -> None:
        """Where the new file cannot be opened the old one is written on."""
        log = self.log()
        self.assertRaises(OSError, log.adopt, os.path.join(self.path, "below"), iso=True)
        log.write("smtp", "one")
        log.flush()
        self.assertEqual(self.text(), "Nov 21 22:20:18 mail smtpreuse/smtp[4321]: one\n")

    def test_standard_output(self) -> None:
        """From a file to standard output and back; standard output is not closed."""
        given: list[tuple[int, bytes]] = []

        def write(file: int, octets: bytes) -> int:
            given.append((file, bytes(octets)))
            return len(octets)

        log = self.log()
        log.adopt("", iso=False)
        self.patch(maillog.os, "write", write)
        log.write("smtp", "one")
        log.flush()
        self.assertEqual([file for file, _ in given], [1])
        log.adopt(self.path, iso=False)
        log.write("smtp", "two")
        log.flush()
        self.assertNotEqual(given[1][0], 1)
        os.fstat(1)
