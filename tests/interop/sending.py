"""
Hands messages to a server with smtplib, and compares what came out with what went in.
"""

from __future__ import annotations

import smtplib
from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from tests.service import LIMIT

SENDER = "sender@source.test"


def address(name: str) -> str:
    """The recipient of a message of the corpus."""
    return f"{name}@sink.test"


def on_the_wire(content: bytes) -> bytes:
    """What a message is for SMTP: it ends with a line end, unless there is nothing of it."""
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


def hand_over(server: tuple[str, int], messages: Mapping[str, bytes], sender: str = SENDER) -> None:
    """Send each to its own recipient, over one connection."""
    with smtplib.SMTP(*server, timeout=LIMIT) as client:
        client.ehlo("client.test")
        for name, content in messages.items():
            if content:
                client.sendmail(sender, [address(name)], content)
                continue
            # smtplib sends a line end where there is nothing.
            client.mail(sender)
            client.rcpt(address(name))
            code, text = client.docmd("DATA")
            assert code == 354, text
            code, text = client.docmd(".")
            assert code == 250, text


def without_received(content: bytes) -> bytes:
    """A message without the one trace field that the service put on top of it."""
    assert content.startswith(b"Received: "), content[:100]
    end = 0
    while not end or content[end : end + 1] in (b" ", b"\t"):
        end = content.index(b"\r\n", end) + 2
    return content[end:]


def compare(case: SynchronousTestCase, came: Mapping[str, bytes], messages: Mapping[str, bytes]) -> None:
    """Fail with the names of those that did not come, came twice, or came changed."""
    wanted = {name: on_the_wire(content) for name, content in messages.items()}
    case.assertEqual(sorted(came), sorted(wanted))
    case.assertEqual([name for name in wanted if came[name] != wanted[name]], [])
