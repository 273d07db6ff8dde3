"""
The service while its disk is full.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers import missing
from tests.service import until
from tests.system.injection import inject, letter, letters
from tests.system.world import SystemTestCase

MIB = 2**20
# What stays free for outcomes and deletes, beside one and a half times the largest message.
RESERVE = 64 * MIB
LARGEST = 2 * MIB
SIZE = 96 * MIB


class FullDiskTests(SystemTestCase):
    """
    Before the disk is full no mail is taken any more, while what was taken goes out and its outcomes are recorded; when
    it is full nothing is lost, and when there is space again all goes on without anybody's help.
    """

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise missing("root (a test of a full disk makes a small file system)")
        self.sink = self.destination()
        self.running = self.service(self.sink, message_size_limit=str(LARGEST), queue_minfree="0")
        self.spool = self.running.directory / "spool"
        self.spool.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=750", "tmpfs", self.spool], capture_output=True, text=True
        )
        if mounted.returncode:
            raise missing(f"leave to mount a small file system ({mounted.stderr.strip()})")
        self.addCleanup(lambda: subprocess.run(["umount", self.spool], check=True))
        self.addCleanup(self.running.stop)
        self.running.start()

    def free(self) -> int:
        """Octets of the file system that are free."""
        state = os.statvfs(self.spool)
        return state.f_bavail * state.f_frsize

    @contextmanager
    def filled(self, left: int) -> Iterator[None]:
        """The file system with so many octets free, as long as this lasts; mail that fails meanwhile is told apart."""
        filler = Path(self.spool, "filler")
        with open(filler, "wb") as file:
            # The service writes as well: there may be less free than there was a moment ago, and then all is done.
            with contextlib.suppress(OSError):
                while (much := self.free() - left) > 0:
                    os.write(file.fileno(), b"x" * min(much, MIB))
            yield
        filler.unlink()

    def test_low(self) -> None:
        """Under the limit intake answers 452 4.3.1, and mail still leaves the queue; above it mail is taken."""
        self.sink.stop()
        sent = inject(self.running.port, list(itertools.islice(letters("F"), 100))).accepted
        self.assertEqual(len(sent), 100)
        limit = LARGEST * 3 // 2 + RESERVE
        with self.filled(limit - MIB):
            until(lambda: self.refuses_with_452(), lambda: f"mail is taken with {self.free()} octets free")
            self.sink.start()
            self.arrived(self.sink, sent)
            self.empty(self.running)
            self.assertTrue(self.refuses_with_452())
        with self.filled(limit + 4 * MIB):
            until(lambda: not self.refuses_with_452(), lambda: f"mail is not taken with {self.free()} octets free")

    def test_contents(self) -> None:
        """However many contents come in at the same time, they leave what outcomes and deletes need."""
        self.sink.stop()
        clients = 12
        limit = LARGEST * 3 // 2 + RESERVE
        with self.filled(limit + 4 * MIB):
            injection = inject(self.running.port, (letter(f"C-{n}", LARGEST - MIB // 4) for n in range(24)), clients)
            self.assertTrue(injection.refused)
            self.assertTrue(all(reply.startswith("452 4.3.1 ") for reply in injection.refused), injection.refused)
            self.assertGreater(self.free(), limit - clients * MIB // 4)
            self.sink.start()
            self.arrived(self.sink, injection.accepted)
            self.empty(self.running)

    def test_full(self) -> None:
        """With nothing left at all, in the middle of deliveries, nothing is lost and nothing doubled."""
        self.sink.stop()
        mail = list(itertools.islice(letters("G"), 400))
        sent = inject(self.running.port, mail).accepted
        with self.filled(0):
            self.sink.start()
            until(lambda: self.refuses_with_452(), lambda: f"mail is taken with {self.free()} octets free")
            until(lambda: "outcomes cannot be recorded" in self.running.printed(), self.running.printed)
            self.assertTrue(self.refuses_with_452())
        self.arrived(self.sink, sent)
        self.empty(self.running)
        until(lambda: not self.refuses_with_452(), lambda: "mail is not taken")
        self.check_whole(self.sink, [*mail, letter("probe")])
        probes = [taken for taken in self.sink.taken if taken.identity == "probe"]
        self.sink.taken = [taken for taken in self.sink.taken if taken not in probes]
        self.check_single(self.sink)

    def refuses_with_452(self) -> bool:
        """Whether a message is refused so now; none is refused in another way."""
        refused = inject(self.running.port, [letter("probe")], 1).refused
        self.assertTrue(all(reply.startswith("452 4.3.1 ") for reply in refused), refused)
        return bool(refused)
