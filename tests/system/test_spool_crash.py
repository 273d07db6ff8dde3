"""
The queue after its process was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from twisted.internet import threads
from twisted.trial.unittest import TestCase

from smtpreuse.model.content import FileContent, MemoryContent
from smtpreuse.spool.sqlite import SQLiteSpool
from tests.system.spool_child import mail, spool_at

HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def child(*arguments: str, under: Sequence[str] = ()) -> subprocess.CompletedProcess[bytes]:
    """Run the process that stores mail to its end, under another program perhaps."""
    return subprocess.run(
        [*under, sys.executable, "-m", "tests.system.spool_child", *arguments],
        stdout=subprocess.PIPE, cwd=HERE, timeout=120, env={**os.environ, "PYTHONPATH": HERE}, check=False,
    )  # fmt: skip


class SpoolCrashTests(TestCase):
    """After SIGKILL at any instant no message that was promised is lost, and none is half."""

    async def test_kill(self) -> None:
        """Killed after 1, 7, 60 and 500 promises, with more under way."""
        for promises in (1, 7, 60, 500):
            directory = os.path.abspath(self.mktemp())
            ended = await threads.deferToThread(child, "kill", directory, str(promises))
            self.assertEqual(ended.returncode, -signal.SIGKILL)
            said = [line.split() for line in ended.stdout.decode().splitlines()]
            self.assertEqual(len(said), promises)
            await self._check(directory, said)

    async def test_leave(self) -> None:
        """A process that does not close the spool ends nevertheless."""
        ended = await threads.deferToThread(child, "leave", os.path.abspath(self.mktemp()))
        self.assertEqual((ended.returncode, ended.stdout.split()[-2:]), (0, [b"end", b"4"]))

    async def _check(self, directory: str, said: list[list[str]]) -> None:
        spool = spool_at(directory)
        spool.open()
        try:
            found = await self._found(spool)
            stored = {queue_id for word, queue_id in said if word == "stored"}
            bounced = {queue_id for word, queue_id in said if word == "bounced"}
            # Its outcome may have been recorded without being said.
            lost = {queue_id for queue_id in stored - bounced - found if "B" + queue_id not in found}
            self.assertEqual(lost, set())
            self.assertEqual(bounced & found, set())
            self.assertLessEqual({"B" + queue_id for queue_id in bounced}, found)
            # An outcome and the bounce that it caused are there together, or neither is.
            self.assertEqual({queue_id for queue_id in found if "B" + queue_id in found}, set())
            self.assertEqual(sum((await spool.counts()).values()), len(found))
        finally:
            await spool.close()

    async def _found(self, spool: SQLiteSpool) -> set[str]:
        """Every message of the queue; each is whole."""
        messages = await spool.due("smtp:example.org", 100_000, float("inf"), set())
        for message in messages:
            self.assertEqual([r.address for r in message.recipients], ["a@example.org", "b@example.org"])
            _, expected = mail(message.queue_id, message.size)
            assert isinstance(expected, MemoryContent)
            content = await spool.content(message.queue_id)
            if isinstance(content, FileContent):
                with open(content.path, "rb") as file:
                    self.assertEqual(file.read(), expected.octets)
            else:
                self.assertEqual(content, expected)
        return {message.queue_id for message in messages}
