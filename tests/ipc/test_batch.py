"""
Tests of L{smtpreuse.ipc.batch} and L{smtpreuse.ipc.recorder}.
"""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import LinkBroken
from smtpreuse.ipc.batch import Batch, read, written
from smtpreuse.ipc.recorder import ENTRIES, FlightRecorder, made
from smtpreuse.model.content import FileContent, MemoryContent
from smtpreuse.model.delivery import DeliveryRequest, Then, Turn
from tests.agent.world import request


def batch(*requests: DeliveryRequest, **values: object) -> Batch:
    """What a lane is given."""
    turn = Turn(requests=requests, then=Then.SAVE, more=True, follow_after=10)
    return evolve(Batch(lane=3, turn=turn, keep=2, held=False), **values)


class BatchTests(SynchronousTestCase):
    """What is written is read, and nothing else."""

    def test_round(self) -> None:
        """Several batches, with and without requests; contents are apart."""
        first = request(ticket=1, content=MemoryContent(b"a: 1\r\n\r\nfirst\r\n"))
        second = evolve(first, ticket=2, content=MemoryContent(b""), fresh=True)
        batches = [batch(first, second), batch(), batch(second, held=True)]
        self.assertEqual(read(written(batches)), batches)

    def test_file(self) -> None:
        """Content in a file is where the reader says."""
        one = request(content=FileContent("/queue/file", 700_000), size=700_000)
        (found,) = read(written((batch(one),)), "/other/name")
        self.assertEqual(found.turn.requests[0].content, FileContent("/other/name", 700_000))
        self.assertRaises(LinkBroken, read, written((batch(one),)))

    def test_route_shared(self) -> None:
        """Requests of one route share it."""
        one = request(ticket=1)
        (found,) = read(written((batch(one, evolve(one, ticket=2)),)))
        self.assertIs(found.turn.requests[0].route, found.turn.requests[1].route)

    @given(st.data())
    def test_garbage(self, data: st.DataObject) -> None:
        """Cut or changed octets are refused, or read as a batch; never anything else."""
        octets = bytearray(written((batch(request(content=MemoryContent(b"x\r\n"))),)))
        if data.draw(st.booleans()):
            del octets[data.draw(st.integers(1, len(octets) - 1)) :]
        else:
            octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            found = read(bytes(octets))
        except LinkBroken:
            return
        self.assertTrue(all(isinstance(each, Batch) for each in found))


class FlightRecorderTests(SynchronousTestCase):
    """What one process enters another reads."""

    def test_entries(self) -> None:
        """Each ticket once, the oldest overwritten."""
        with made() as memory:
            writer, reader = FlightRecorder(memory), FlightRecorder(memory)
        self.assertEqual(reader.entries(), (set(), set()))
        writer.begun(5)
        writer.begun(6)
        writer.dotted(5)
        self.assertEqual(reader.entries(), ({5, 6}, {5}))
        for ticket in range(100, 100 + ENTRIES):
            writer.dotted(ticket)
        begun, dotted = reader.entries()
        self.assertEqual((len(begun), begun), (ENTRIES, dotted))
        self.assertNotIn(5, begun)
        writer.close()
        reader.close()
