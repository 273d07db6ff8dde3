"""
How a destination treats its clients: values only.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class Demand(Enum):
    """What a destination says about STARTTLS: it does not offer it, it offers it, it takes no mail without."""

    OFF = "off"
    ON = "on"
    REQUIRED = "required"


@frozen(kw_only=True)
class Habits:
    """
    How a destination treats its clients.

    @ivar delay: seconds that each group of replies is held back, as a long way would.
    @ivar max_connections: connections at a time, further ones are greeted with 421; 0 is no limit.
    @ivar messages_per_connection: messages after which MAIL is answered 421; 0 is no limit.
    @ivar capture: directory in which each message is kept: C{N.eml}, and its envelope in C{N.json}; empty keeps none.
    """

    demand: Demand = Demand.ON
    delay: float = 0.0
    max_connections: int = 0
    messages_per_connection: int = 0
    capture: str = ""
    size_limit: int = 100 * 1024 * 1024
