"""
What every body of L{ISpool} and L{IQueueDesk} promises.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from unittest.mock import patch

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import Interface
from zope.interface.verify import verifyObject

from smtpreuse.errors import SpoolError
from smtpreuse.interfaces import IQueueDesk, ISpool
from smtpreuse.model.content import FileContent, MemoryContent
from smtpreuse.model.message import Body, Message, Recipient
from smtpreuse.model.queueview import Recorded

FOREVER = float("inf")
START = float("-inf")


class ISpoolAndDesk(ISpool, IQueueDesk):
    """A body that is both."""


def message(
    queue_id: str, *addresses: str, size: int, sender: str = "sender@example.com", held: bool = False
) -> Message:
    """A message whose recipients go where their domain says."""
    return Message(
        queue_id=queue_id, arrived=100.25, sender=sender, size=size, body=Body.EIGHT_BIT,
        client="client.example.com[192.0.2.1]", held=held,
        recipients=tuple(
            Recipient(address=address, hop="smtp:" + address.rpartition("@")[2]) for address in addresses
        ),
    )  # fmt: skip


def octets(text: str = "Hello") -> bytes:
    """Content with this body."""
    return b"Subject: test\r\nTo: you\r\n\r\n" + text.encode() + b"\r\n"


def done(stored: Message) -> list[Recorded]:
    """All recipients of a message are done."""
    return [Recorded(queue_id=stored.queue_id, row=r.row, hop=r.hop) for r in stored.recipients]


def deferred(stored: Message, until: float, reason: str = "later", attempts: int = 1) -> list[Recorded]:
    """All recipients of a message are to be tried again."""
    return [
        Recorded(queue_id=stored.queue_id, row=r.row, hop=r.hop, next_attempt=until, reason=reason, attempts=attempts)
        for r in stored.recipients
    ]


class SpoolContract(TestCase):
    """
    To be inherited by the tests of a body.
    """

    clock: Clock
    spool: ISpoolAndDesk

    async def reopened(self) -> None:
        """Close the spool and open the same queue again, as C{self.spool}."""
        raise NotImplementedError

    async def put(self, queue_id: str, *addresses: str, text: str = "Hello", held: bool = False) -> Message:
        """Append a message."""
        content = octets(text)
        envelope = message(queue_id, *addresses, size=len(content), held=held)
        return await self.spool.append(envelope, MemoryContent(content))

    async def ids(self, hop: str, until: float = FOREVER, limit: int = 100) -> list[str]:
        """Queue ids of what is due."""
        return [found.queue_id for found in await self.spool.due(hop, limit, until, set())]

    async def delete(self, queue_ids: Sequence[str] | None, skip: Set[str] = frozenset()) -> list[str]:
        """Delete these messages; the queue ids of those that went."""
        gone: list[str] = []
        deleted = await self.spool.delete(queue_ids, lambda: skip, gone.extend)
        self.assertEqual(deleted, len(gone))
        return gone

    def test_interfaces(self) -> None:
        """It has every method of both seams."""
        seams: tuple[type[Interface], ...] = (ISpool, IQueueDesk)
        for seam in seams:
            self.assertTrue(verifyObject(seam, self.spool))

    async def test_room(self) -> None:
        """There is room for a little, and none for more than any disk has."""
        self.assertTrue(self.spool.room(1000))
        self.assertFalse(self.spool.room(2**63))

    async def test_whole(self) -> None:
        """What was appended comes back as it was, with rows, after a restart too."""
        stored = await self.put("Q1", "a@example.org", "b@example.org")
        rows = [r.row for r in stored.recipients]
        self.assertTrue(0 < rows[0] < rows[1])
        for _ in range(2):
            self.assertEqual(await self.spool.due("smtp:example.org", 10, FOREVER, set()), [stored])
            self.assertEqual(await self.spool.content("Q1"), MemoryContent(octets()))
            await self.reopened()

    async def test_rows_after_restart(self) -> None:
        """A row is not given to another recipient while the first one is in the queue."""
        first = await self.put("Q1", "a@example.org", "b@example.org")
        await self.reopened()
        second = await self.put("Q2", "a@example.org")
        self.assertGreater(second.recipients[0].row, first.recipients[1].row)

    async def test_original(self) -> None:
        """Original address, attempts and the null sender are kept."""
        given = Message(
            queue_id="Q1", arrived=1.0, sender="", size=len(octets()), body=Body.SEVEN_BIT, client="bounce",
            recipients=(Recipient(address="a@example.org", original="A", hop="error:5.1.1 no: such", attempts=3),),
        )  # fmt: skip
        stored = await self.spool.append(given, MemoryContent(octets()))
        self.assertEqual(stored.recipients[0].original, "A")
        self.assertEqual(await self.spool.due("error:5.1.1 no: such", 1, FOREVER, set()), [stored])

    async def test_hostile_addresses(self) -> None:
        """No address is anything but an address."""
        parts = ("x'); DROP TABLE messages;--", '"a\\"b"', "\U0001f40d", "%_*", "?1", "a\u2028b")
        hostile = [f"{local}@example.org" for local in parts]
        stored = await self.put("Q1", *hostile)
        (found,) = await self.spool.due("smtp:example.org", 10, FOREVER, set())
        self.assertEqual([r.address for r in found.recipients], hostile)
        self.assertEqual(found, stored)
        self.assertEqual(await self.spool.due("smtp:' OR 1=1 --", 10, FOREVER, set()), [])
        self.assertEqual(await self.spool.flush("' OR 1=1 --"), 0)
        self.assertEqual(await self.delete(["' OR 1=1 --"], set()), [])
        row = await self.spool.show("Q1")
        assert row is not None
        self.assertEqual([r.address for r in row.recipients], hostile)

    async def test_together(self) -> None:
        """Many messages at the same time are all stored."""
        count = 137
        await gatherResults([Deferred.fromCoroutine(self.put(f"Q{i:03}", "a@example.org")) for i in range(count)])
        self.assertEqual(sorted(await self.ids("smtp:example.org", limit=1000)), [f"Q{i:03}" for i in range(count)])
        self.assertEqual((await self.spool.counts())["incoming"], count)

    async def test_same_id(self) -> None:
        """A queue id is taken once; what fails takes nothing else with it."""
        waiting = [
            Deferred.fromCoroutine(self.put(queue_id, "a@example.org")) for queue_id in ("Q1", "Q2", "Q1", "Q3")
        ]
        await waiting[0]
        await waiting[1]
        await self.assertFailure(waiting[2], SpoolError)
        await waiting[3]
        self.assertEqual(sorted(await self.ids("smtp:example.org")), ["Q1", "Q2", "Q3"])

    async def test_not_whole(self) -> None:
        """A message without recipients, of another size, or with an id that is none is refused."""
        content = MemoryContent(octets())
        for bad in (
            message("Q1", size=content.size),
            message("Q1", "a@example.org", size=content.size + 1),
            message("../Q1", "a@example.org", size=content.size),
            message("", "a@example.org", size=content.size),
        ):
            with self.assertRaises(SpoolError):
                await self.spool.append(bad, content)
        self.assertEqual((await self.spool.counts())["incoming"], 0)

    async def test_oldest_first(self) -> None:
        """What has waited longest comes first, and no more than was asked for."""
        for i in (3, 1, 2):
            self.clock.advance(1)
            stored = await self.put(f"Q{i}", "a@example.org")
        self.assertEqual(await self.ids("smtp:example.org", limit=2), ["Q3", "Q1"])
        self.assertEqual(await self.ids("smtp:example.org", self.clock.seconds() - 0.5), ["Q3", "Q1"])
        found = await self.spool.due("smtp:example.org", 2, FOREVER, {stored.recipients[0].row - 1})
        self.assertEqual([one.queue_id for one in found], ["Q3", "Q2"])

    async def test_fresh_and_retries(self) -> None:
        """Three fresh ones for each that is tried again, where there is enough of both; else whatever there is."""
        for i in range(20):
            stored = await self.put(f"R{i}", "a@example.org")
            await self.spool.record(deferred(stored, 1.0 + i), [])
        for i in range(12):
            await self.put(f"F{i}", "a@example.org")
        found = await self.ids("smtp:example.org", limit=8)
        self.assertEqual(sorted(found), sorted([*(f"F{i}" for i in range(6)), "R0", "R1"]))
        self.assertEqual(len(await self.ids("smtp:example.org", limit=30)), 30)
        await self.delete([f"F{i}" for i in range(11)])
        self.assertEqual(sorted(await self.ids("smtp:example.org", limit=4)), ["F11", "R0", "R1", "R2"])
        await self.delete([f"R{i}" for i in range(20)])
        self.assertEqual(await self.ids("smtp:example.org", limit=4), ["F11"])

    async def test_whole_messages_of_both_kinds(self) -> None:
        """The last fresh one and the last that is tried again are given with all of their recipients."""
        two = ("a@example.org", "b@example.org")
        for i in range(4):
            stored = await self.put(f"R{i}", *two)
            await self.spool.record(deferred(stored, 1.0 + i), [])
            await self.put(f"F{i}", *two)
        found = await self.spool.due("smtp:example.org", 5, FOREVER, set())
        self.assertEqual({each.queue_id: len(each.recipients) for each in found}, {"R0": 2, "F0": 2, "F1": 2})

    async def test_hops_apart(self) -> None:
        """A message comes with those of its recipients that are due at the hop asked for."""
        stored = await self.put("Q1", "a@one.example.org", "b@two.example.org", "c@one.example.org")
        (found,) = await self.spool.due("smtp:one.example.org", 10, FOREVER, set())
        self.assertEqual(found.recipients, (stored.recipients[0], stored.recipients[2]))
        (found,) = await self.spool.due("smtp:one.example.org", 10, FOREVER, {stored.recipients[0].row})
        self.assertEqual(found.recipients, stored.recipients[2:])

    async def test_whole_messages(self) -> None:
        """The limit does not cut a message's recipients in two: what is sent once is sent once."""
        first = await self.put("Q1", "a@example.org", "b@example.org", "c@other.example.org", "d@example.org")
        second = await self.put("Q2", "a@example.org", "b@example.org")
        await self.put("Q3", "a@example.org")
        wanted = [(first.recipients[0], first.recipients[1], first.recipients[3]), second.recipients]
        for limit, messages in ((1, 1), (2, 1), (3, 1), (4, 2), (5, 2)):
            found = await self.spool.due("smtp:example.org", limit, FOREVER, set())
            self.assertEqual([one.recipients for one in found], wanted[:messages])
        skipped = {first.recipients[0].row, second.recipients[0].row}
        found = await self.spool.due("smtp:example.org", 3, FOREVER, skipped)
        self.assertEqual([one.recipients for one in found], [wanted[0][1:], second.recipients[1:]])

    async def test_done(self) -> None:
        """A message leaves with its last recipient, and not before; its end is told once."""
        stored = await self.put("Q1", "a@example.org", "b@example.org")
        first, second = done(stored)
        self.assertEqual((await self.spool.record([first], [])).removed, ())
        self.assertEqual(await self.spool.content("Q1"), MemoryContent(octets()))
        self.assertEqual(await self.ids("smtp:example.org"), ["Q1"])
        self.assertEqual((await self.spool.record([second], [])).removed, ("Q1",))
        self.assertEqual(await self.ids("smtp:example.org"), [])
        with self.assertRaises(SpoolError):
            await self.spool.content("Q1")
        self.assertEqual(set((await self.spool.counts()).values()), {0})
        self.assertEqual((await self.spool.record([second], [])).removed, ())

    async def test_done_at_once(self) -> None:
        """Of two records that end a message together one tells it."""
        stored = await self.put("Q1", "a@example.org", "b@example.org")
        other = await self.put("Q2", "a@example.org")
        ends = await gatherResults([
            Deferred.fromCoroutine(self.spool.record([each], [])) for each in (*done(stored), *done(other))
        ])
        self.assertEqual(sorted(queue_id for end in ends for queue_id in end.removed), ["Q1", "Q2"])

    async def test_deferred(self) -> None:
        """What is put off is due again at its time, with its attempts and its reason."""
        stored = await self.put("Q1", "a@example.org")
        reason = "host mx.example.org[192.0.2.2] said: 450 4.2.0 it's \"full\" \0 \udc80 \u00e9"
        await self.spool.record(deferred(stored, 500.5, reason, 2), [])
        self.assertEqual(await self.ids("smtp:example.org", 500.0), [])
        (found,) = await self.spool.due("smtp:example.org", 1, 500.5, set())
        self.assertEqual(found.recipients[0].attempts, 2)
        row = await self.spool.show("Q1")
        assert row is not None
        self.assertEqual(row.state, "deferred")
        self.assertEqual(row.recipients[0].next_attempt, 500.5)
        self.assertEqual(row.recipients[0].delay_reason, reason.replace("\0", "?").replace("\udc80", "?"))
        self.assertEqual((await self.spool.counts())["deferred"], 1)

    async def test_bounce(self) -> None:
        """A bounce is born in the commit of the outcome that it reports."""
        stored = await self.put("Q1", "a@example.org")
        bounce = octets("undeliverable")
        committed = await self.spool.record(
            done(stored), [(message("Q2", "sender@example.com", size=len(bounce), sender=""), MemoryContent(bounce))]
        )
        self.assertEqual(committed.removed, ("Q1",))
        self.assertEqual(await self.spool.due("smtp:example.com", 1, FOREVER, set()), list(committed.stored))
        self.assertEqual(await self.spool.content("Q2"), MemoryContent(bounce))

    async def test_bounce_fails(self) -> None:
        """When the bounce cannot be stored, the outcome is not recorded either."""
        stored = await self.put("Q1", "a@example.org")
        bounce = octets("undeliverable")
        twin = (message("Q1", "sender@example.com", size=len(bounce)), MemoryContent(bounce))
        with self.assertRaises(SpoolError):
            await self.spool.record(done(stored), [twin])
        self.assertEqual(await self.spool.due("smtp:example.org", 1, FOREVER, set()), [stored])

    async def test_hold(self) -> None:
        """Held mail is never due."""
        await self.put("Q1", "a@example.org", held=True)
        self.assertEqual(await self.ids("smtp:example.org"), [])
        self.assertEqual(await self.spool.nexthops(START, FOREVER, "", 10), [])
        self.assertEqual((await self.spool.counts())["hold"], 1)
        self.assertEqual(await self.spool.flush(None), 0)

    async def test_large(self) -> None:
        """Content of any size is kept, from memory and from a scratch file, and goes with its message."""
        large = octets("x" * 300_000)
        first = await self.spool.append(message("Q1", "a@example.org", size=len(large)), MemoryContent(large))
        path = self.spool.scratch()
        self.assertNotEqual(path, self.spool.scratch())
        with open(path, "wb") as file:
            file.write(large)
        await self.spool.append(message("Q2", "a@example.org", size=len(large)), FileContent(path, len(large)))
        await self.reopened()
        for queue_id in ("Q1", "Q2"):
            content = await self.spool.content(queue_id)
            assert isinstance(content, FileContent)
            with open(content.path, "rb") as file:
                self.assertEqual(file.read(), large)
            row = await self.spool.show(queue_id)
            assert row is not None
            self.assertEqual(row.header, "Subject: test\r\nTo: you")
        await self.spool.record(done(first), [])
        with self.assertRaises(SpoolError):
            await self.spool.content("Q1")

    async def test_scratch_missing(self) -> None:
        """A message whose scratch file is not there, or too short, is not taken."""
        path = self.spool.scratch()
        for size in (3, 5):
            with self.assertRaises(SpoolError):
                await self.spool.append(message("Q1", "a@example.org", size=size), FileContent(path, size))
            with open(path, "wb") as file:
                file.write(b"abc")
        self.assertEqual(await self.ids("smtp:example.org"), [])

    async def test_nexthops(self) -> None:
        """Hops come in order, in pages, those of the time asked about only."""
        for name in ("c", "a", "b", "d"):
            stored = await self.put(f"Q{name}", f"x@{name}.example.org", f"y@{name}.example.org")
        await self.spool.record(deferred(stored, 5000.0), [])
        hops = [f"smtp:{name}.example.org" for name in "abcd"]
        self.assertEqual(await self.spool.nexthops(START, FOREVER, "", 10), hops)
        self.assertEqual(await self.spool.nexthops(START, FOREVER, "", 2), hops[:2])
        self.assertEqual(await self.spool.nexthops(START, FOREVER, hops[1], 10), hops[2:])
        self.assertEqual(await self.spool.nexthops(START, self.clock.seconds(), "", 10), hops[:3])
        self.assertEqual(await self.spool.nexthops(self.clock.seconds(), 5000.0, "", 10), hops[3:])
        self.assertEqual(await self.spool.nexthops(5000.0, FOREVER, "", 10), [])

    async def test_pages(self) -> None:
        """Pages follow each other without gap or overlap, and the last one says so."""
        for i in range(5):
            await self.put(f"Q{i}", "a@example.org")
        after: str | None = ""
        found: list[list[str]] = []
        while after is not None:
            page = await self.spool.page(after, 2)
            found.append([row.queue_id for row in page.rows])
            after = page.after
        self.assertEqual(found, [["Q0", "Q1"], ["Q2", "Q3"], ["Q4"]])
        self.assertIsNone((await self.spool.page("", 5)).after)
        self.assertEqual((await self.spool.page("Q4", 5)).rows, ())

    async def test_show(self) -> None:
        """One message is shown with its header; none is none."""
        stored = await self.put("Q1", "a@example.org")
        row = await self.spool.show("Q1")
        assert row is not None
        self.assertEqual(
            (row.queue_id, row.state, row.arrived, row.size, row.sender, row.header),
            ("Q1", "incoming", 100.25, stored.size, "sender@example.com", "Subject: test\r\nTo: you"),
        )
        (recipient,) = row.recipients
        self.assertEqual((recipient.address, recipient.hop), ("a@example.org", "smtp:example.org"))
        self.assertIsNone((await self.spool.page("", 1)).rows[0].header)
        self.assertIsNone(await self.spool.show("Q2"))

    async def test_no_header(self) -> None:
        """Content that begins with its body has no header."""
        content = b"\r\nno: header\r\n\r\nbody\r\n"
        await self.spool.append(message("Q1", "a@example.org", size=len(content)), MemoryContent(content))
        row = await self.spool.show("Q1")
        assert row is not None
        self.assertEqual(row.header, "")

    async def test_flush(self) -> None:
        """Deferred mail becomes due: of a recipient domain, of a nexthop, or all of it."""
        for i, domain in enumerate(("One.example.org", "two.example.org", "three.example.org")):
            stored = await self.put(f"Q{i}", f"a@{domain}", f"b@{domain}")
            await self.spool.record(deferred(stored, 1e9), [])
        now = self.clock.seconds()
        self.assertEqual(await self.spool.flush("nowhere.example.org"), 0)
        self.assertEqual(await self.spool.flush("one.EXAMPLE.org"), 1)
        self.assertEqual(await self.ids("smtp:One.example.org", now), ["Q0"])
        self.assertEqual(await self.ids("smtp:two.example.org", now), [])
        self.assertEqual(await self.spool.flush(None), 2)
        self.assertEqual(await self.ids("smtp:three.example.org", now), ["Q2"])
        self.assertEqual(await self.spool.flush(None), 0)

    async def test_delete(self) -> None:
        """What is deleted is gone, and what is to be skipped stays."""
        for i in range(6):
            await self.put(f"Q{i}", "a@example.org", "b@example.org")
        self.assertEqual(sorted(await self.delete(["Q0", "Q1", "Q2", "Q9"], {"Q1"})), ["Q0", "Q2"])
        self.assertEqual(sorted(set(await self.ids("smtp:example.org"))), ["Q1", "Q3", "Q4", "Q5"])
        self.assertEqual(sorted(await self.delete(None, {"Q4"})), ["Q1", "Q3", "Q5"])
        self.assertEqual(await self.ids("smtp:example.org"), ["Q4"])
        self.assertEqual(await self.spool.content("Q4"), MemoryContent(octets()))
        self.assertEqual((await self.spool.counts())["incoming"], 1)

    async def test_delete_under_inflow(self) -> None:
        """What comes in after the command was not meant, however long the command takes; flush likewise."""
        with patch("smtpreuse.spool.desk._PIECE", 2):
            for i in range(6):
                stored = await self.put(f"Q{i}", "a@example.org")
                await self.spool.record(deferred(stored, 1e9), [])
            gone: list[str] = []
            later: list[Deferred[Message]] = []

            def more(queue_ids: Sequence[str]) -> None:
                gone.extend(queue_ids)
                if len(later) < 20:
                    later.append(Deferred.fromCoroutine(self.put(f"N{len(later)}", "a@example.org")))

            self.assertEqual(await self.spool.delete(None, frozenset, more), 6)
            await gatherResults(later)
            self.assertEqual(sorted(gone), [f"Q{i}" for i in range(6)])
            self.assertEqual(len(await self.ids("smtp:example.org")), len(later))
            self.assertEqual(await self.spool.flush(None), 0)

    async def test_delete_asks_before_each_piece(self) -> None:
        """What was taken up for delivery while the command was under way stays."""
        taken: set[str] = set()
        with patch("smtpreuse.spool.desk._PIECE", 2):
            for queue_ids in (None, [f"Q{i}" for i in range(6)]):
                for i in range(6):
                    await self.put(f"Q{i}", "a@example.org")
                taken.clear()
                deleted = await self.spool.delete(queue_ids, lambda: taken, lambda _: taken.add("Q5"))
                self.assertEqual(deleted, 5)
                self.assertEqual(await self.ids("smtp:example.org"), ["Q5"])
                await self.delete(["Q5"])

    async def test_record_after_delete(self) -> None:
        """An outcome of what an operator has deleted changes nothing."""
        stored = await self.put("Q1", "a@example.org")
        await self.delete(None, set())
        committed = await self.spool.record([*deferred(stored, 5.0), *done(stored)], [])
        self.assertEqual(committed.removed, ())
        self.assertEqual(await self.ids("smtp:example.org"), [])
