"""
What the kernel is asked for before a message is promised.
"""

from __future__ import annotations

import os
import re
import shutil

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.system.test_spool_crash import child

_CALL = re.compile(
    r"(?P<pid>\d+) +(?:(?P<name>fdatasync|fsync)\((?P<file>\d+<[^>]*>)(?P<result>\) += 0|.*unfinished)"
    r"|<\.\.\. (?:fdatasync|fsync) resumed>(?P<resumed>\) += 0)"
    r'|write\(1<[^>]*>, "(?P<said>begin|end) (?P<number>\d+))'
)


class SpoolDurabilityTests(SynchronousTestCase):
    """A message is promised only when the disk has it."""

    def test_sync_before_promise(self) -> None:
        """Between the call of append and its end a sync of the write-ahead log has begun and come back."""
        if shutil.which("strace") is None:
            raise SkipTest("strace is missing")
        trace = os.path.abspath(self.mktemp())
        watch = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o", trace]
        ended = child("append", os.path.abspath(self.mktemp()), under=watch)
        if ended.returncode != 0 and not os.path.exists(trace):
            raise SkipTest("strace may not trace here")
        self.assertEqual(ended.stdout.decode().split()[-2:], ["end", "4"])
        with open(trace) as file:
            self.assertEqual(promises(file.readlines()), {number: True for number in range(5)})


def promises(lines: list[str]) -> dict[int, bool]:
    """For each message, whether a sync of the log both began and ended while it was being stored."""
    found: dict[int, bool] = {}
    begun: set[str] = set()
    synced = False
    for line in lines:
        call = _CALL.match(line)
        if call is None:
            continue
        if call["said"] == "begin":
            begun.clear()
            synced = False
        elif call["said"] == "end":
            found[int(call["number"])] = synced
        elif call["resumed"]:
            synced = synced or call["pid"] in begun
        elif call["file"].endswith("queue.db-wal>"):
            if "unfinished" in call["result"]:
                begun.add(call["pid"])
            else:
                synced = True
    return found


class PromisesTests(SynchronousTestCase):
    """The judge of the test above can say no."""

    begin, end = '7 write(1<pipe:[1]>, "begin 0\\n", 8) = 8', '7 write(1<pipe:[1]>, "end 0\\n", 6) = 6'
    sync = "8 fdatasync(9</q/queue.db-wal>) = 0"

    def test_judge(self) -> None:
        """A sync must fall between, be of the log, and have come back."""
        half, rest = "8 fdatasync(9</q/queue.db-wal> <unfinished ...>", "8 <... fdatasync resumed>) = 0"
        for lines, good in (
            ([self.begin, self.sync, self.end], True),
            ([self.begin, half, rest, self.end], True),
            ([self.begin, half, self.end, rest], False),
            ([half, self.begin, rest, self.end], False),
            ([self.sync, self.begin, self.end, self.sync], False),
            ([self.begin, self.sync.replace("-wal", ""), self.end], False),
            ([self.begin, self.sync.replace("= 0", "= -1 EIO"), self.end], False),
        ):
            self.assertEqual(promises(lines), {0: good}, lines)
