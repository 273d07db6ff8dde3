"""
A link to another process of ours: verbs with values and descriptors, asked for an answer or told.

It knows no role and no verb. What is not as agreed (a value that does not decode, a descriptor that is not the one that
was sent, a box of another protocol) ends the link, and never the process. The wire is AMP's; values are msgpack's, and
the types of the verbs check them.
"""

# ruff: noqa: N802, N815  (names that Twisted has chosen)

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from smtpreuse.errors import DescriptorError, LinkBroken, LinkError, LinkRefused, SmtpreuseError
from smtpreuse.ipc.descriptor import Descriptor, mark, proved
from smtpreuse.ipc.parcel import INLINE, packed, unpacked
from smtpreuse.ipc.stream import Adopter
from smtpreuse.ipc.verb import MALFORMED, A, R, Verb, encode

_TELL = b"tell"
LIMIT = 5.0
"""For how many seconds an answer is waited for, where nothing else is said."""


class _Refused(Exception):
    """Its text goes to whoever asked."""


class _Ask(amp.Command):
    commandName = b"ask"
    arguments: ClassVar = [
        (b"verb", amp.Unicode()),
        (b"value", amp.String()),
        (b"marks", amp.String(optional=True)),
        (b"parcel", amp.Descriptor(optional=True)),
        (b"first", amp.Descriptor(optional=True)),
    ]
    response: ClassVar = [(b"value", amp.String())]
    errors: ClassVar = {_Refused: b"REFUSED"}


class Link(amp.AMP):
    """
    One end of it.

    @ivar name: who is at the other end, for people: C{tlsproxy 1}.
    @ivar lost: whether it is over.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated in Twisted
        self.name = name
        self.lost = False
        self._clock = clock
        self._served: dict[str, tuple[Verb[object, object], Callable[..., object]]] = {}
        self._mourners: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<Link to {self.name}{', lost' if self.lost else ''}>"

    # What its user does

    def serve(self, verb: Verb[A, R], function: Callable[..., R | Awaitable[R]]) -> None:
        """
        Answer a verb with this function of its argument, and of its descriptors, which are the function's then. What it
        raises of our own errors is the answer no.
        """
        self._served[verb.name] = verb, function  # type: ignore[assignment]  # the two belong together; the table does not say so

    def when_lost(self, call: Callable[[], object]) -> None:
        """Call this when it is over; at once where it is."""
        if self.lost:
            call()
        else:
            self._mourners.append(call)

    async def ask(self, verb: Verb[A, R], value: A, *descriptors: Descriptor, limit: float = LIMIT) -> R:
        """
        Ask, and wait for the answer.

        @param descriptors: taken over; they are closed here when the answer has come, or will not.
        @param limit: seconds.
        @raise LinkRefused: when the answer is no.
        @raise LinkError: when there is no answer.
        """
        octets = encode(value)
        given = list(descriptors)
        box: dict[str, object] = {"verb": verb.name, "value": octets}
        try:
            self._check(verb, given)
            if len(octets) > INLINE:
                given.insert(0, packed((octets,)))
                box.update(value=b"", parcel=given[0].fileno())
            if descriptors:
                box["first"] = descriptors[0].fileno()
            if given:
                box["marks"] = b",".join(map(mark, given))
            asked: Deferred[dict[str, bytes]] = self.callRemote(_Ask, **box)  # type: ignore[no-untyped-call]  # not annotated in Twisted
            answer = await asked.addTimeout(limit, self._clock)
        except _Refused as error:
            raise LinkRefused(str(error)) from error
        except LinkError:
            raise
        except Exception as error:
            raise LinkError(f"{self.name} does not answer ({verb.name}: {_reason(error)})") from error
        finally:
            for descriptor in given:
                descriptor.close()
        try:
            return verb.answer.decode(answer["value"])
        except MALFORMED as error:
            self._broken(f"answers {verb.name} with what is none: {error}")
            raise LinkError(f"{self.name} answers {verb.name} with what is none") from error

    def tell(self, verb: Verb[A, None], value: A) -> None:
        """Say something that needs no answer; where the link is lost nothing happens."""
        if self.lost:
            return
        octets = encode(value)
        if len(octets) > INLINE:
            Deferred.fromCoroutine(self.ask(verb, value)).addErrback(self._untold, verb)
        else:
            # Without AMP's commands, which cost ten times as much: there is no answer, and one value.
            self.sendBox(amp.Box({amp.COMMAND: _TELL, b"verb": verb.octets, b"value": octets}))  # type: ignore[no-untyped-call]  # not annotated in Twisted

    def end(self) -> None:
        """End it."""
        if self.transport is not None:
            self.transport.loseConnection()

    # AMP

    def locateResponder(self, name: bytes) -> Callable[..., Deferred[object]] | None:
        """Nothing but our one command is answered."""
        if name != _Ask.commandName:
            self._broken(f"asks for {name[:32]!r}, which is not of this protocol")
        responder: Callable[..., Deferred[object]] | None = super().locateResponder(name)  # type: ignore[no-untyped-call]  # not annotated in Twisted
        return responder

    def connectionLost(self, reason: Failure | None = None) -> None:
        """It is over."""
        self.lost = True
        super().connectionLost(reason or Failure(ConnectionDone()))  # type: ignore[no-untyped-call]  # not annotated in Twisted
        for number in self._descriptors.values():
            os.close(number)
        self._descriptors.clear()
        mourners, self._mourners = self._mourners, []
        for call in mourners:
            call()

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """One came; its verb follows."""
        os.set_inheritable(descriptor, False)
        super().fileDescriptorReceived(descriptor)  # type: ignore[no-untyped-call]  # not annotated in Twisted

    def ampBoxReceived(self, box: amp.Box) -> None:
        """A box came."""
        if box.get(amp.COMMAND) != _TELL:
            try:
                super().ampBoxReceived(box)  # type: ignore[no-untyped-call]  # not annotated in Twisted
            except (KeyError, amp.NoEmptyBoxes):
                self._broken("answers what was not asked, or says nothing")
            return
        try:
            self._told(box[b"verb"], box[b"value"])
        except KeyError:
            self._broken("tells without a verb or a value")
        except _Refused as error:
            self.log.error("not understood: {name} {what}", name=self.name, what=str(error))

    @_Ask.responder
    def _asked(
        self, verb: str, value: bytes, marks: bytes | None = None, parcel: int | None = None, first: int | None = None
    ) -> dict[str, bytes] | Deferred[dict[str, bytes]]:
        descriptors = self._received(marks, [number for number in (parcel, first) if number is not None])
        if parcel is not None:
            try:
                value = unpacked(descriptors.pop(0))
            except LinkBroken as error:
                self._closed(descriptors)
                raise self._broken(f"{verb}: {error}") from error
        known, function = self._known(verb, descriptors)
        if len(descriptors) != known.descriptors:
            self._closed(descriptors)
            raise self._broken(f"sends {len(descriptors)} descriptors with {verb}, which has {known.descriptors}")
        try:
            argument = known.argument.decode(value)
        except MALFORMED as error:
            self._closed(descriptors)
            raise self._broken(f"sends a {verb} that is none: {error}") from error
        return self._answered(verb, function, argument, descriptors)

    # inside

    def _told(self, octets: bytes, value: bytes) -> None:
        verb = octets.decode("ascii", "replace")
        known, function = self._known(verb, [])
        try:
            argument = known.argument.decode(value)
        except MALFORMED as error:
            raise self._broken(f"sends a {verb} that is none: {error}") from error
        answer = self._answered(verb, function, argument, [])
        if isinstance(answer, Deferred):
            answer.addErrback(self._unanswerable, verb)

    def _unanswerable(self, failure: Failure, verb: str) -> None:
        self.log.error(
            "not done: {verb} of {name}: {reason}", verb=verb, name=self.name, reason=failure.getErrorMessage()
        )

    def _known(
        self, verb: str, descriptors: list[Descriptor]
    ) -> tuple[Verb[object, object], Callable[..., object]]:
        try:
            return self._served[verb]
        except KeyError:
            self._closed(descriptors)
            raise _Refused(f"verb {verb!r} is not known here") from None

    def _answered(
        self, verb: str, function: Callable[..., object], argument: object, descriptors: list[Descriptor]
    ) -> dict[str, bytes] | Deferred[dict[str, bytes]]:
        try:
            result = function(argument, *descriptors)
        except LinkBroken as error:
            raise self._broken(str(error)) from error
        except SmtpreuseError as error:
            raise _Refused(str(error)) from error
        except Exception as error:
            self.log.failure("verb failed: {verb} from {name}", verb=verb, name=self.name)
            raise _Refused(f"internal error in {verb}") from error
        if isinstance(result, Awaitable):
            return Deferred.fromCoroutine(self._later(verb, result))
        return {"value": encode(result)}

    async def _later(self, verb: str, result: Awaitable[object]) -> dict[str, bytes]:
        try:
            return {"value": encode(await result)}
        except SmtpreuseError as error:
            raise _Refused(str(error)) from error
        except Exception as error:
            self.log.failure("verb failed: {verb} from {name}", verb=verb, name=self.name)
            raise _Refused(f"internal error in {verb}") from error

    def _received(self, marks: bytes | None, numbers: list[int]) -> list[Descriptor]:
        """What came, each proved to be what was sent."""
        try:
            return proved(numbers, marks.split(b",") if marks else [])
        except DescriptorError as error:
            raise self._broken(f"{error} (too few are free here?)") from error

    def _broken(self, what: str) -> _Refused:
        """The other end does not keep to what was agreed: nothing it says is believed any more."""
        self.log.error("link ended: {name} {what}", name=self.name, what=what)
        if self.transport is not None:
            self.transport.loseConnection()
        return _Refused(what)

    def _untold(self, failure: Failure, verb: Verb[A, None]) -> None:
        self.log.error(
            "{name} was not told {verb}: {reason}", name=self.name, verb=verb.name, reason=failure.getErrorMessage()
        )

    def _check(self, verb: Verb[A, R], descriptors: list[Descriptor]) -> None:
        if self.lost or self.transport is None:
            raise LinkError(f"{self.name} is gone")
        if len(descriptors) != verb.descriptors:
            raise LinkError(f"{verb.name} has {verb.descriptors} descriptors, not {len(descriptors)}")

    @staticmethod
    def _closed(descriptors: list[Descriptor]) -> None:
        for descriptor in descriptors:
            descriptor.close()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


class _Joining(Factory):
    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: IAddress | None) -> Link:
        return self._link


def join(reactor: Adopter, link: Link, descriptor: Descriptor) -> None:
    """
    Put a link on a socketpair's end, which is the link's then.

    @raise LinkError: when nobody is at the other end any more.
    @raise OSError: when there is no descriptor left.
    """
    with descriptor:
        os.set_blocking(descriptor.fileno(), False)
        try:
            reactor.adoptStreamConnection(descriptor.fileno(), socket.AF_UNIX, _Joining(link))
        except ConnectionError as error:
            raise LinkError(f"{link.name} is gone") from error


def pair() -> tuple[Descriptor, Descriptor]:
    """
    The two ends of what a link goes over.

    @raise OSError: when there is no descriptor left.
    """
    one, other = socket.socketpair()
    return Descriptor.of(one), Descriptor.of(other)
