"""
The control socket: HTTP for the operator's tools, over the queue's desk and the view of the running service.

It holds which path does what, and checks arguments; it knows no storage and no delivery. A list comes as one JSON
object per line, in pages: where a page is not the last one, the header C{Link: </queue?...>; rel="next"} leads on
(RFC 8288), so neither side ever holds a whole queue.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence, Set
from typing import BinaryIO, Protocol

from attrs import AttrsInstance, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from smtpreuse.control import objects
from smtpreuse.control.objects import Changed, Draining, NotReloaded, Refusal, Reloaded, Resolver, Role, Status
from smtpreuse.control.usage import Usage, usage, usage_of
from smtpreuse.errors import ConfigurationError, ServiceEnding, SpoolError
from smtpreuse.interfaces import IQueueDesk, IServiceControl, IServiceView

_FORM = "application/x-www-form-urlencoded"
# As many rows as are asked of the desk at once.
PAGE = 1000


@frozen(kw_only=True)
class Call:
    """
    What was asked.

    @ivar queue_id: from the path, where it names one; else empty.
    @ivar arguments: of the query and of a form in the body.
    """

    queue_id: str = ""
    arguments: dict[str, list[str]] = field(factory=dict)

    def single(self, name: str) -> str:
        """An argument that may be given once; empty when it is not there."""
        values = self.arguments.get(name, [""])
        if len(values) > 1:
            raise BadArgumentError(f"{name} is given more than once")
        return values[0]


@frozen(kw_only=True)
class Answer:
    """
    @ivar shown: L{objects<smtpreuse.control.objects>}, one per line.
    @ivar headers: of the response, beside those that all have.
    """

    status: int = 200
    shown: tuple[AttrsInstance, ...] = ()
    headers: dict[str, str] = field(factory=dict)


class BadArgumentError(ValueError):
    """An argument that cannot be used; its text is the answer."""


Handler = Callable[[Call], Awaitable[Answer]]


class Control:
    """Answers what is asked on the control socket."""

    def __init__(
        self,
        desk: IQueueDesk,
        view: IServiceView,
        service: IServiceControl,
        clock: IReactorTime,
        version: str,
        measure: Callable[[], Usage] = usage,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        @param version: of this program, as C{status} tells it.
        @param measure: what the process uses.
        @param wall: UNIX time by the clock on the wall, for people to read.
        """
        self._desk = desk
        self._view = view
        self._service = service
        self._clock = clock
        self._version = version
        self._measure = measure
        self._wall = wall
        self._started = clock.seconds()
        # C{*} stands for a queue id; words go before it.
        self._routes: dict[tuple[str, ...], dict[str, Handler]] = {
            ("queue",): {"GET": self._list},
            ("queue", "flush"): {"POST": self._flush},
            ("queue", "delete"): {"POST": self._delete_several},
            ("queue", "*"): {"GET": self._show},
            ("queue", "*", "delete"): {"POST": self._delete_one},
            ("sessions",): {"GET": self._sessions},
            ("status",): {"GET": self._status},
            ("reload",): {"POST": self._reload},
            ("drain",): {"POST": self._drain},
        }

    async def answer(self, method: str, path: Sequence[str], arguments: dict[str, list[str]]) -> Answer:
        """
        Do what is asked.

        @param path: its segments.
        """
        pattern, queue_id = tuple(path), ""
        if pattern not in self._routes and len(path) > 1:
            pattern, queue_id = (path[0], "*", *path[2:]), path[1]
        methods = self._routes.get(pattern)
        if methods is None:
            return refusal(404, f"there is nothing at /{'/'.join(path)}")
        handler = methods.get(method)
        if handler is None:
            allowed = ", ".join(methods)
            return refusal(405, f"/{'/'.join(path)} does not take {method} (allowed: {allowed})", {"allow": allowed})
        try:
            return await handler(Call(queue_id=queue_id, arguments=arguments))
        except BadArgumentError as error:
            return refusal(400, str(error))
        except ServiceEnding as error:
            return refusal(409, str(error))
        except SpoolError as error:
            return refusal(503, f"the queue cannot be used: {error}")

    async def _list(self, call: Call) -> Answer:
        limit = call.single("limit") or str(PAGE)
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= PAGE):
            raise BadArgumentError(f"limit is not a number of rows: {limit!r} (allowed: 1 to {PAGE})")
        page = await self._desk.page(_queue_id(call.single("after"), empty=True), int(limit))
        active, ahead = self._view.active(), self._ahead()
        following = {} if page.after is None else {"link": f'</queue?after={page.after}&limit={limit}>; rel="next"'}
        return Answer(shown=tuple(objects.message(row, active, ahead) for row in page.rows), headers=following)

    async def _show(self, call: Call) -> Answer:
        row = await self._desk.show(_queue_id(call.queue_id))
        if row is None:
            return refusal(404, f"no such queue id: {call.queue_id}")
        return Answer(shown=(objects.full_message(row, self._view.active(), self._ahead()),))

    def _ahead(self) -> float:
        """In whole seconds: the clock on the wall is set by more, and a time told twice is to be the same."""
        return float(round(self._wall() - self._clock.seconds()))

    async def _flush(self, call: Call) -> Answer:
        site = call.single("site")
        # Whatever is meant by something else, it is not to try the whole queue.
        if call.arguments.keys() - {"site"} or (call.arguments and not site):
            raise BadArgumentError("what is to be flushed is not clear (allowed: site=NEXTHOP, or nothing for all)")
        changed = await self._desk.flush(site or None)
        self._view.flushed()
        return _changed(changed, 0)

    async def _delete_several(self, call: Call) -> Answer:
        queue_ids = [_queue_id(queue_id) for queue_id in call.arguments.get("id", ())]
        everything = call.single("all")
        if everything not in ("", "yes") or bool(everything) == bool(queue_ids):
            raise BadArgumentError("what is to be deleted is not clear (allowed: id=QUEUEID, repeated, or all=yes)")
        return _changed(*await self._delete(None if everything else queue_ids))

    async def _delete_one(self, call: Call) -> Answer:
        changed, in_flight = await self._delete([_queue_id(call.queue_id)])
        if not changed and not in_flight:
            return refusal(404, f"no such queue id: {call.queue_id}")
        return _changed(changed, in_flight)

    async def _delete(self, queue_ids: list[str] | None) -> tuple[int, int]:
        # What a transaction may be carrying is left alone: its outcome is not ours to decide any more.
        left: set[str] = set()

        def skip() -> Set[str]:
            in_flight = self._view.in_flight()
            left.update(in_flight if queue_ids is None else in_flight & set(queue_ids))
            return in_flight

        return await self._desk.delete(queue_ids, skip, self._view.deleted), len(left)

    async def _sessions(self, call: Call) -> Answer:
        now = self._clock.seconds()
        return Answer(shown=tuple(objects.session(row, now) for row in await self._view.sessions()))

    async def _reload(self, call: Call) -> Answer:
        _no_arguments(call)
        try:
            return Answer(shown=(Reloaded(next_start=await self._service.reload()),))
        except ConfigurationError as error:
            return Answer(shown=(NotReloaded(problems=error.problems),))

    async def _drain(self, call: Call) -> Answer:
        _no_arguments(call)
        return Answer(shown=(Draining(limit=self._service.drain()),))

    async def _status(self, call: Call) -> Answer:
        stored = await self._desk.counts()
        sessions = await self._view.sessions()
        counters = self._view.counters()
        pid = os.getpid()
        own = sum(row.process == pid for row in sessions)
        roles = [self._role("smtpreuse", pid, self._started, own, self._measure())]
        for each in self._view.processes():
            used = usage_of(each.process)
            roles.append(self._role(each.name, each.process, each.started, each.sessions, used))
        status = Status(
            version=self._version,
            pid=pid,
            state="draining" if self._view.draining() else "running",
            queue=objects.queue_counts(stored, len(self._view.active())),
            sessions=objects.session_counts(sessions),
            delivered=counters.delivered,
            reused=counters.reused,
            deferred=counters.deferred,
            bounced=counters.bounced,
            roles=roles,
            resolver=Resolver(),
        )
        return Answer(shown=(status,))

    def _role(self, name: str, pid: int, started: float, sessions: int, used: Usage) -> Role:
        age = objects.span(started, self._clock.seconds())
        return Role(name=name, pid=pid, age=age, sessions=sessions, rss=used.rss, cpu=round(used.cpu, 3))


def refusal(status: int, text: str, headers: dict[str, str] | None = None) -> Answer:
    """An answer that says why not."""
    return Answer(status=status, shown=(Refusal(error=text),), headers=headers or {})


def _no_arguments(call: Call) -> None:
    if call.arguments:
        raise BadArgumentError(f"not an argument of this: {', '.join(sorted(call.arguments))} (allowed: none)")


def _changed(changed: int, in_flight: int) -> Answer:
    return Answer(shown=(Changed(changed=changed, in_flight=in_flight),))


def _queue_id(text: str, *, empty: bool = False) -> str:
    # Postfix's character set. What is outside of it names no message anywhere.
    if (text.isascii() and text.isalnum()) or (empty and not text):
        return text
    raise BadArgumentError(f"not a queue id: {text!r} (allowed: letters and digits)")


class _Exchange(Protocol):
    """What we need of a twisted.web request, whose methods carry no annotations and have Twisted's names."""

    method: bytes
    path: bytes
    postpath: list[bytes] | None
    args: dict[bytes, list[bytes]] | None
    content: BinaryIO | None

    def getHeader(self, key: bytes) -> bytes | None: ...  # noqa: N802

    def notifyFinish(self) -> Deferred[None]: ...  # noqa: N802

    def setResponseCode(self, code: int) -> None: ...  # noqa: N802

    def setHeader(self, name: bytes, value: bytes) -> None: ...  # noqa: N802

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...


class ControlResource(Resource):
    """Carries L{Control} over twisted.web."""

    isLeaf = True  # noqa: N815  # Twisted's name
    _log = Logger()

    def __init__(self, control: Control) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # twisted.web is not annotated here
        self._control = control

    def render(self, request: _Exchange) -> int:
        """Begin to answer."""
        Deferred.fromCoroutine(self._respond(request))
        return NOT_DONE_YET

    async def _respond(self, request: _Exchange) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        try:
            answer = await self._answer(request)
        except Exception:
            self._log.failure("control request failed: path={path!r}", path=request.path)
            answer = refusal(500, "the service could not do it: its log says why")
        if gone:
            return
        request.setResponseCode(answer.status)
        request.setHeader(b"content-type", b"application/x-ndjson")
        for name, value in answer.headers.items():
            request.setHeader(name.encode(), value.encode())
        request.write("".join(f"{objects.written(shown)}\n" for shown in answer.shown).encode())
        request.finish()

    async def _answer(self, request: _Exchange) -> Answer:
        if _unread(request):
            return refusal(400, f"the body is not a form ({_FORM})")
        return await self._control.answer(
            _text(request.method),
            [_text(segment) for segment in request.postpath or ()],
            {_text(name): [_text(value) for value in values] for name, values in (request.args or {}).items()},
        )


def _unread(request: _Exchange) -> bool:
    """Whether there is a body that no argument came of."""
    if request.content is None:
        return False
    request.content.seek(0)
    if not request.content.read(1):
        return False
    kind = _text(request.getHeader(b"content-type") or b"").partition(";")[0].strip().lower()
    return kind != _FORM or not request.args


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


class _ControlSite(Site):
    def log(self, request: Request) -> None:
        """Nothing: a probe of C{status} every second is no event."""


def make_site(
    desk: IQueueDesk, view: IServiceView, service: IServiceControl, clock: IReactorTime, version: str,
    wall: Callable[[], float] = time.time,
) -> Site:
    """
    What is to listen on the control socket.

    @param version: of this program, as C{status} tells it.
    @param wall: UNIX time by the clock on the wall, for people to read.
    """
    resource = ControlResource(Control(desk, view, service, clock, version, wall=wall))
    site = _ControlSite(resource, reactor=clock)  # type: ignore[no-untyped-call]  # twisted.web is not annotated here
    site.noisy = False
    return site
