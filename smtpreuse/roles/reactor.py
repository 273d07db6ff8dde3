"""
What the service needs of a reactor.
"""

from __future__ import annotations

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorProcess,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUDP,
    IReactorUNIX,
)
from zope.interface import Interface


class IServiceReactor(
    IReactorCore, IReactorFDSet, IReactorProcess, IReactorSocket, IReactorTCP, IReactorThreads, IReactorTime,
    IReactorUDP, IReactorUNIX, Interface,
):  # fmt: skip
    """All of it; every process of the service has the same."""
