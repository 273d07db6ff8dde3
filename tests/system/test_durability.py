"""
What the kernel is asked for before a message is answered 250.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import missing, program
from tests.service import scratch
from tests.system.injection import inject, letter
from tests.system.world import SystemTestCase

_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)", re.DOTALL)
_CALL = re.compile(r"(?P<name>\w+)\((?P<number>\d+)<(?P<file>[^>]*(?:->[^>]*)?)>")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_RECEIVES = ("recvfrom", "read", "recvmsg")
_SENDS = ("sendto", "write", "sendmsg", "writev")
_SYNCS = ("fsync", "fdatasync")
# As strace writes them.
_FINAL_DOT = r"\r\n.\r\n"
_PROMISE = "250 2.0.0 Ok: queued as"


class DurabilityTests(SystemTestCase):
    """A message is answered 250 only when the disk has it."""

    def test_sync_before_promise(self) -> None:
        """
        Every 250 to a final dot follows a sync of the queue that began after that message was complete and has come
        back; of several connections together, so that commits are shared, and with large content too.
        """
        strace = program("strace")
        trace = scratch(self) / "trace"
        running = self.service(self.destination())
        calls = ",".join((*_RECEIVES, *_SENDS, *_SYNCS))
        under = (strace, "-f", "-y", "-s", "400000", "-e", f"trace={calls}", "-o", str(trace))
        try:
            running.start(under=under)
        except AssertionError as error:
            if "ptrace" in str(error).lower():
                raise missing("leave to trace processes") from error
            raise
        mail = [letter(f"P{number}", 300_000 if number == 20 else 600) for number in range(60)]
        self.assertEqual(len(inject(running.port, mail, 8).accepted), 60)
        self.empty(running)
        # The tracer hands no signals on.
        os.kill(int((running.directory / "spool" / "lock").read_text()), signal.SIGTERM)
        self.assertEqual(running.wait(), 0)
        with open(trace, errors="replace") as lines:
            found = promises(lines)
        self.assertEqual(found, [True] * 60)


def promises(lines: Iterable[str]) -> list[bool]:
    """
    For each message that was answered 250, in order, whether a sync of the queue began after it was complete, and had
    come back before.
    """
    found: list[bool] = []
    tails: dict[str, str] = {}
    complete: dict[str, int] = {}
    unfinished: dict[str, tuple[str, str, int]] = {}
    synced = -1
    for at, line in enumerate(lines):
        parts = _LINE.match(line)
        if parts is None:
            continue
        pid, rest = parts["pid"], parts["rest"]
        resumed, call = _RESUMED.match(rest), _CALL.match(rest)
        if resumed is not None and pid in unfinished:
            name, file, began = unfinished.pop(pid)
        elif call is not None:
            name, file, began = call["name"], f"{call['number']}<{call['file']}>", at
        else:
            continue
        texts = _TEXT.findall(rest)
        # What is to be sent is known when the call begins, what was received when it has ended.
        if name in _SENDS and resumed is None and texts and _PROMISE in texts[0] and file in complete:
            found.append(synced > complete.pop(file))
        if rest.rstrip().endswith("<unfinished ...>"):
            unfinished[pid] = name, file, began
        elif name in _SYNCS and "queue.db-wal" in file and rest.rstrip().endswith("= 0"):
            synced = max(synced, began)
        elif name in _RECEIVES and texts:
            text = tails.get(file, "") + texts[0]
            if _FINAL_DOT in text:
                complete[file] = at
                text = ""
            tails[file] = text[-16:]
    return found


class PromisesTests(SynchronousTestCase):
    """The judge of the test above can say no."""

    dot = r'7 recvfrom(12<TCP:[a->b]>, "x\r\n.\r\n", 65536, 0, NULL, NULL) = 6'
    reply = r'7 sendto(12<TCP:[a->b]>, "250 2.0.0 Ok: queued as X\r\n", 27, 0, NULL, 0) = 27'
    sync = "8 fdatasync(9</q/queue.db-wal>) = 0"
    begun = "8 fdatasync(9</q/queue.db-wal> <unfinished ...>"
    over = "8 <... fdatasync resumed>) = 0"

    def test_judge(self) -> None:
        """A sync must begin behind the final dot, be of the log, succeed, and be over before the reply."""
        halves = [r'7 recvfrom(12<TCP:[a->b]>, "x\r\n.", 9) = 4', r'7 recvfrom(12<TCP:[a->b]>, "\r\n", 9) = 2']
        for lines, good in (
            ([self.dot, self.sync, self.reply], True),
            ([*halves, self.sync, self.reply], True),
            ([self.dot, self.begun, self.over, self.reply], True),
            ([self.dot, self.begun, self.reply, self.over], False),
            ([self.begun, self.dot, self.over, self.reply], False),
            ([self.sync, self.dot, self.reply], False),
            ([self.dot, self.reply, self.sync], False),
            ([self.dot, self.sync.replace("-wal", ""), self.reply], False),
            ([self.dot, self.sync.replace("= 0", "= -1 EIO"), self.reply], False),
            ([halves[0], self.sync, halves[1], self.reply], False),
        ):
            self.assertEqual(promises(lines), [good], lines)
