"""
Tools that read Postfix's log read ours.
"""

from __future__ import annotations

import re
import subprocess

from tests.interop.sending import hand_over
from tests.interop.towards_postfix import DestinationTestCase, numbered
from tests.peers import program
from tests.service import LIMIT, until


class PflogsummTests(DestinationTestCase):
    """What pflogsumm counts is what happened."""

    def counted(self) -> dict[str, int]:
        """The grand totals that pflogsumm shows."""
        command = [program("pflogsumm"), "--syslog-name=smtpreuse", str(self.service.directory / "maillog")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        totals = re.findall(r"^ +(\d+) +([a-z ]+?)(?: +\(.*)?$", ended.stdout, re.MULTILINE)
        return {name: int(number) for number, name in totals}

    def test_counts(self) -> None:
        """Seven messages sent, two refused for good and returned to their sender, three refused for now."""
        self.service.start()
        hand_over(self.service.address, numbered("good", 7))
        for name, times in (("gone", 2), ("later", 3)):
            for _ in range(times):
                hand_over(self.service.address, {name: b"Subject: x\r\n\r\nbody\r\n"}, sender="writer@sink.test")
        # Seven, two bounces to the writer.
        until(lambda: len(self.service.maillog(": removed")) == 7 + 2 + 2, self.logs)
        until(lambda: len(self.service.maillog("status=deferred")) == 3, self.logs)
        until(lambda: self.postfix.count() == 7 + 2, self.logs)
        counted = self.counted()
        self.assertEqual(counted["received"], 7 + 2 + 3, counted)
        self.assertEqual(counted["delivered"], 7 + 2, counted)
        self.assertEqual((counted["deferred"], counted["bounced"], counted["rejected"]), (3, 2, 0), counted)
