"""
The running service, as its operator's tools see it.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from smtpreuse.interfaces import IServiceView
from smtpreuse.model.queueview import Counters, ProcessRow, SessionRow
from smtpreuse.queue.dispatch import Dispatcher
from smtpreuse.roles.delivery import Delivery


@implementer(IServiceView)
class ServiceView:
    """Looks at the parts, wherever they are."""

    def __init__(self, dispatcher: Dispatcher, delivery: Delivery) -> None:
        self._dispatcher = dispatcher
        self._delivery = delivery

    def active(self) -> set[str]:
        return self._dispatcher.active()

    def in_flight(self) -> set[str]:
        return self._dispatcher.in_flight()

    def counters(self) -> Counters:
        return self._dispatcher.counters()

    def draining(self) -> bool:
        return self._dispatcher.draining

    def deleted(self, queue_ids: Sequence[str]) -> None:
        self._dispatcher.deleted(queue_ids)

    def flushed(self) -> None:
        self._dispatcher.flushed()

    def processes(self) -> list[ProcessRow]:
        return self._delivery.processes()

    async def sessions(self) -> list[SessionRow]:
        return await self._delivery.sessions()
