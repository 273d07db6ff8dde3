"""
Tests of L{smtpreuse.ipc.link} and L{smtpreuse.ipc.parcel}.
"""

from __future__ import annotations

import os
import socket

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.protocols import amp
from twisted.trial.unittest import TestCase

from smtpreuse.errors import DescriptorError, LinkBroken, LinkError, LinkRefused
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import Link, join, pair
from smtpreuse.ipc.parcel import MOST, NO_FAMILY, packed, unpacked
from smtpreuse.ipc.verb import Verb

ECHO = Verb("echo", str, str)
NOTE = Verb("note", str, type(None))
LOOK = Verb("look", str, int, descriptors=1)


class LinkTests(TestCase):
    """What is asked is answered, and what is not as agreed ends the link alone."""

    def setUp(self) -> None:
        self.near, self.far = Link(reactor, "far"), Link(reactor, "near")
        self.noted: list[str] = []
        self.far.serve(ECHO, lambda text: text[::-1])
        self.far.serve(NOTE, self.noted.append)
        self.far.serve(LOOK, self.look)
        for link, end in zip((self.near, self.far), pair(), strict=True):
            join(reactor, link, end)
            self.addCleanup(self.ended, link)

    def ended(self, link: Link) -> Deferred[None]:
        """It is over."""
        over: Deferred[None] = Deferred()
        link.when_lost(lambda: over.callback(None))
        link.end()
        return over

    def look(self, text: str, descriptor: Descriptor) -> int:
        """The number of what a descriptor leads to."""
        with descriptor:
            return os.fstat(descriptor.fileno()).st_ino

    async def test_ask(self) -> None:
        """An answer comes back, whatever its length."""
        self.assertEqual(await self.near.ask(ECHO, "abc"), "cba")
        self.assertEqual(await self.near.ask(ECHO, "x" * 30_000), "x" * 30_000)

    async def test_tell(self) -> None:
        """What is told arrives in order, also where it is too long for a value of the protocol."""
        for text in ("one", "y" * 200_000, "three"):
            self.near.tell(NOTE, text)
        await self.near.ask(ECHO, "")
        self.assertEqual(self.noted, ["one", "y" * 200_000, "three"])

    async def test_descriptor(self) -> None:
        """A descriptor arrives as what it is, is close-on-exec, and is closed here when that is known."""
        one, other = pair()
        with other:
            inode = os.fstat(one.fileno()).st_ino
            self.assertEqual(await self.near.ask(LOOK, "", one), inode)
            self.assertRaises(DescriptorError, one.fileno)
            with self.assertRaises(LinkError):
                await self.near.ask(LOOK, "")

    async def test_refused(self) -> None:
        """Our own errors are the answer no; a fault is one, and is logged there."""

        def refuse(text: str) -> str:
            if text == "fault":
                raise ZeroDivisionError
            raise LinkError("not today")

        self.far.serve(ECHO, refuse)
        with self.assertRaisesRegex(LinkRefused, "not today"):
            await self.near.ask(ECHO, "a")
        with self.assertRaisesRegex(LinkRefused, "internal error in echo"):
            await self.near.ask(ECHO, "fault")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertFalse(self.near.lost)

    async def test_later(self) -> None:
        """An answer may take its time."""
        gate: Deferred[None] = Deferred()

        async def later(text: str) -> str:
            await gate
            return text

        self.far.serve(ECHO, later)
        asked = Deferred.fromCoroutine(self.near.ask(ECHO, "abc"))
        reactor.callLater(0, gate.callback, None)
        self.assertEqual(await asked, "abc")

    async def test_unknown(self) -> None:
        """A verb that is not known is refused, and what came with it is closed."""
        one, other = pair()
        with other:
            with self.assertRaisesRegex(LinkRefused, "not known"):
                await self.near.ask(Verb("other", str, int, descriptors=1), "", one)
            sock = socket.socket(fileno=other.take())
            with sock:
                sock.setblocking(True)
                self.assertEqual(sock.recv(1), b"")
        self.assertEqual(await self.near.ask(ECHO, "ab"), "ba")

    async def broken(self) -> None:
        """The link is over, for whoever is at either end."""
        over: Deferred[None] = Deferred()
        self.near.when_lost(lambda: over.callback(None))
        await over
        with self.assertRaises(LinkError):
            await self.near.ask(ECHO, "a")
        self.near.tell(NOTE, "nobody hears it")

    async def test_malformed(self) -> None:
        """A value of another type ends the link; whoever asked learns it."""
        with self.assertRaises(LinkError):
            await self.near.ask(Verb("echo", int, str), 7)
        await self.broken()

    async def test_malformed_told(self) -> None:
        """So does one that was told."""
        self.near.tell(Verb("note", int, type(None)), 7)
        await self.broken()

    async def test_malformed_answer(self) -> None:
        """An answer that is none ends the link."""
        with self.assertRaises(LinkError):
            await self.near.ask(Verb("echo", str, int), "a")
        await self.broken()

    async def test_not_as_agreed(self) -> None:
        """A function may find that what came cannot be: the link ends."""

        def find(text: str) -> str:
            raise LinkBroken("says what cannot be")

        self.far.serve(ECHO, find)
        with self.assertRaises(LinkError):
            await self.near.ask(ECHO, "a")
        await self.broken()

    async def test_other_descriptor(self) -> None:
        """A descriptor that is not the one that was sent is not believed: it would lead mail to another server."""
        one, other = pair()
        with one, other:
            wrong = b"%d:%d" % (os.fstat(other.fileno()).st_ino, socket.AF_UNIX)
            self.near.transport.sendFileDescriptor(one.fileno())
            box = amp.Box({
                b"_ask": b"1", b"_command": b"ask", b"verb": b"look", b"value": b"\xa0", b"first": b"0",
                b"marks": wrong,
            })  # fmt: skip
            self.near.sendBox(box)
            await self.broken()

    async def test_foreign_box(self) -> None:
        """A command of another protocol ends the link."""
        self.near.sendBox(amp.Box({b"_ask": b"1", b"_command": b"sum", b"a": b"1"}))
        await self.broken()

    async def test_no_answer(self) -> None:
        """Nobody is waited for without end."""
        self.far.serve(ECHO, lambda text: Deferred())
        with self.assertRaisesRegex(LinkError, "far does not answer"):
            await self.near.ask(ECHO, "a", limit=0.01)

    async def test_lost(self) -> None:
        """Whoever is told of the end late is told all the same."""
        await self.ended(self.near)
        told: list[int] = []
        self.near.when_lost(lambda: told.append(1))
        self.assertEqual(told, [1])


class ParcelTests(TestCase):
    """What is too long for a value comes out as it went in."""

    def test_whole(self) -> None:
        """Pieces are joined; there may be any number of them."""
        for pieces in ((), (b"",), (b"a", b"", b"bc"), (b"x" * 70_000,) * 3, (b"y",) * 2500):
            self.assertEqual(unpacked(packed(pieces)), b"".join(pieces))

    def test_too_many(self) -> None:
        """More octets than anything has are not read."""
        descriptor = Descriptor(os.memfd_create("test"), NO_FAMILY)
        os.ftruncate(descriptor.fileno(), MOST + 1)
        self.assertRaisesRegex(LinkBroken, "allowed", unpacked, descriptor)

    def test_no_file(self) -> None:
        """What cannot be read is no parcel."""
        one, other = pair()
        with other:
            self.assertRaises(LinkBroken, unpacked, one)
