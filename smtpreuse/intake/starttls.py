"""
Where clients get their TLS from, and what is remembered when it was not to be had.

It knows the proxy as a seam, and nothing of SMTP or of a client.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from smtpreuse.interfaces import IStreamEnd, ITLSProxy
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.model.tlsfacts import TLSResult, TLSRole, TLSSettings

NOT_NOW = "454 4.7.0 TLS not available due to local problem"
# Seconds. A fault of ours shows only when the client has been told to begin, and costs it its connection: those who
# come next hear of it in time, and one of them tries it again.
PAUSE = 10.0
_SERVER = TLSSettings(role=TLSRole.SERVER)


class Securing:
    """
    Makes TLS on connections of clients.
    """

    _log = Logger()

    def __init__(self, proxy: ITLSProxy | None, clock: IReactorTime) -> None:
        """
        @param proxy: L{None} where there is none.
        """
        self._proxy = proxy
        self._clock = clock
        self._faulty_until = 0.0

    def available(self) -> bool:
        """Whether a client may begin its handshake now."""
        return self._proxy is not None and self._clock.seconds() >= self._faulty_until

    async def start(self, network_end: Descriptor, timeout: float) -> tuple[TLSResult, IStreamEnd | None]:
        """
        Do the handshake, as L{ITLSProxy.start} does.

        @param timeout: seconds.
        @return: also where the proxy broke; its fault is ours then.
        """
        assert self._proxy is not None, "TLS was not to be had"
        try:
            result, end = await self._proxy.start(network_end, _SERVER, timeout)
        except CancelledError:
            raise
        except Exception as error:
            self._log.failure("client's TLS failed")
            network_end.close()
            result, end = TLSResult(error=f"TLS proxy failed: {error}", local=True), None
        if result.local:
            self._faulty_until = self._clock.seconds() + PAUSE
            self._log.error(
                "TLS not available to clients: reason={why} pause={seconds}", why=result.error, seconds=PAUSE
            )
        return result, end
