"""
Requests on their way to an agent: envelopes first, then contents, as one run of octets.

What many requests share, their routes, is there once. An agent needs no access to the spool: content in a file comes as
a descriptor, with a batch of that one request.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from attrs import frozen

from smtpreuse.errors import LinkBroken
from smtpreuse.ipc.verb import MALFORMED
from smtpreuse.model.content import Content, FileContent, MemoryContent
from smtpreuse.model.delivery import DeliveryRequest, Then, Turn
from smtpreuse.model.message import Body, Recipient
from smtpreuse.model.nexthop import Endpoint
from smtpreuse.model.route import Route

# Octets of the number in front that says how long the head is.
_LENGTH = 4


@frozen(kw_only=True)
class _Envelope:
    """
    A request without what it shares with others, and without its content.

    @ivar route: which of the batch's.
    @ivar length: octets of its content in the batch; -1 where that is in a file.
    """

    ticket: int
    queue_id: str
    sender: str
    recipients: tuple[Recipient, ...]
    size: int
    body: Body
    route: int
    arrived: float
    activated: float
    tried: frozenset[Endpoint]
    fresh: bool
    length: int


@frozen(kw_only=True)
class _Head:
    lane: int
    keep: int
    held: bool
    then: Then
    more: bool
    follow_after: int | None
    routes: tuple[Route, ...]
    envelopes: tuple[_Envelope, ...]


@frozen(kw_only=True)
class Batch:
    """
    What a lane is given.

    @ivar keep: as L{ILane.keep<smtpreuse.interfaces.ILane>}, now.
    @ivar held: as L{ILane.held<smtpreuse.interfaces.ILane>}, now.
    """

    lane: int
    turn: Turn
    keep: int
    held: bool


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Head).decode


def written(batches: Sequence[Batch]) -> bytes:
    """As octets; content in files is left out."""
    return b"".join(map(_written, batches))


def _written(batch: Batch) -> bytes:
    routes: dict[int, int] = {}
    shared: list[Route] = []
    envelopes: list[_Envelope] = []
    contents: list[bytes] = []
    for request in batch.turn.requests:
        place = routes.setdefault(id(request.route), len(shared))
        if place == len(shared):
            shared.append(request.route)
        content = request.content
        if isinstance(content, MemoryContent):
            contents.append(content.octets)
        envelopes.append(_Envelope(
            ticket=request.ticket, queue_id=request.queue_id, sender=request.sender, recipients=request.recipients,
            size=request.size, body=request.body, route=place, arrived=request.arrived, activated=request.activated,
            tried=request.tried, fresh=request.fresh,
            length=len(content.octets) if isinstance(content, MemoryContent) else -1,
        ))  # fmt: skip
    turn = batch.turn
    head = _encode(_Head(
        lane=batch.lane, keep=batch.keep, held=batch.held, then=turn.then, more=turn.more,
        follow_after=turn.follow_after, routes=tuple(shared), envelopes=tuple(envelopes),
    ))  # fmt: skip
    return b"".join((len(head).to_bytes(_LENGTH, "big"), head, *contents))


def read(octets: bytes, file: str | None = None) -> list[Batch]:
    """
    The batches in these octets.

    @param file: where the content is that is not among them.
    @raise LinkBroken: when they are none.
    """
    batches: list[Batch] = []
    begin = 0
    while begin < len(octets):
        batch, begin = _read(octets, begin, file)
        batches.append(batch)
    if begin != len(octets):
        raise LinkBroken(f"batches of {begin} octets came with {len(octets)}")
    return batches


def _read(octets: bytes, begin: int, file: str | None) -> tuple[Batch, int]:
    """
    @return: the batch that begins here, and where the next one does.
    """
    head_begin = begin + _LENGTH
    begin = head_begin + int.from_bytes(octets[begin:head_begin], "big")
    try:
        head = _decode(memoryview(octets)[head_begin:begin])
        requests: list[DeliveryRequest] = []
        for envelope in head.envelopes:
            content, begin = _content(octets, begin, envelope, file)
            requests.append(_request(envelope, content, head.routes))
    except (*MALFORMED, IndexError) as error:
        raise LinkBroken(f"a batch came that is none: {error}") from error
    turn = Turn(requests=tuple(requests), then=head.then, more=head.more, follow_after=head.follow_after)
    return Batch(lane=head.lane, turn=turn, keep=head.keep, held=head.held), begin


def _content(octets: bytes, begin: int, envelope: _Envelope, file: str | None) -> tuple[Content, int]:
    """
    @return: the content, and where the next one begins.
    """
    if envelope.length < 0:
        if file is None:
            raise IndexError("content is in a file that did not come")
        return FileContent(file, envelope.size), begin
    end = begin + envelope.length
    return MemoryContent(octets[begin:end]), end


def _request(envelope: _Envelope, content: Content, routes: Sequence[Route]) -> DeliveryRequest:
    if envelope.route < 0:
        raise IndexError("route before the first one")
    return DeliveryRequest(
        ticket=envelope.ticket, queue_id=envelope.queue_id, sender=envelope.sender, recipients=envelope.recipients,
        size=envelope.size, body=envelope.body, content=content, route=routes[envelope.route],
        arrived=envelope.arrived, activated=envelope.activated, tried=envelope.tried, fresh=envelope.fresh,
    )  # fmt: skip
