"""
The queue on a file system that is full.
"""

from __future__ import annotations

import os
import subprocess

from twisted.trial.unittest import SkipTest, TestCase

from smtpreuse.errors import SpoolError, SpoolFull
from smtpreuse.model.queueview import Recorded
from smtpreuse.spool.sqlite import SQLiteSpool
from tests.system.spool_child import mail, spool_at


class SpoolFullTests(TestCase):
    """A full disk loses nothing, and when there is space again all works again."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can make a small file system")
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", self.directory], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            raise SkipTest(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
        self.addCleanup(subprocess.run, ["umount", self.directory], check=True)

    async def test_full(self) -> None:
        """Mail is refused before; outcomes fail whole, and succeed when there is space."""
        spool = spool_at(os.path.join(self.directory, "queue"))
        spool.open()
        try:
            await self._work(spool)
        finally:
            await spool.close()

    async def _work(self, spool: SQLiteSpool) -> None:
        with self.assertRaises(SpoolFull):
            await spool.append(*mail("Q0"))
        (first,) = (await spool.record([], [mail("Q1")])).stored
        filler = os.path.join(self.directory, "filler")
        with open(filler, "wb") as file, self.assertRaises(OSError):
            while True:
                os.write(file.fileno(), b"x" * 4096)
        done = [Recorded(queue_id="Q1", row=r.row, hop=r.hop) for r in first.recipients]
        # 100 pages find no room; larger content none for its file.
        with self.assertRaises(SpoolFull):
            await spool.record(done, [mail(f"B{number}") for number in range(100)])
        with self.assertRaises(SpoolError):
            await spool.record(done, [mail("C1", 300_000)])
        self.assertEqual(await spool.due("smtp:example.org", 10, float("inf"), set()), [first])
        os.unlink(filler)
        committed = await spool.record(done, [mail(f"B{number}") for number in range(100)])
        self.assertEqual(committed.removed, ("Q1",))
        self.assertEqual((await spool.counts())["incoming"], 100)
        for number in range(100):
            self.assertEqual(await spool.content(f"B{number}"), mail(f"B{number}")[1])
