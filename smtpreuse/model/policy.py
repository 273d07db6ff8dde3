"""
What a connection must prove before mail may ride on it.
"""

from __future__ import annotations

from enum import IntEnum

from attrs import field, frozen

from smtpreuse.model.tlsfacts import TLSSettings


class Level(IntEnum):
    """
    TLS security levels, the stronger the higher, with Postfix's numbers (C{tls.h}).
    """

    NONE = 0
    MAY = 1
    ENCRYPT = 2


@frozen(kw_only=True)
class Policy:
    """
    @ivar level: what is asked for.
    @ivar connection_reuse: whether a TLS session may serve more than one transaction.
    @ivar settings: what the handshake is made with; not looked at where C{level} is C{NONE}.
    """

    level: Level
    connection_reuse: bool = True
    settings: TLSSettings = field(factory=TLSSettings)
