"""
All that main.cf says of the work of an agent, in one value: what an agent is given at its start, and anew at a reload.
"""

from __future__ import annotations

from attrs import frozen

from smtpreuse.agent.connect import OpeningRules
from smtpreuse.agent.reuse import SearchRules


@frozen(kw_only=True)
class AgentRules:
    """
    @ivar host_pause: seconds for which an endpoint that failed goes last.
    @ivar tls_loglevel: 0 keeps the lines about TLS out of the operator's log.
    @ivar most_reuses: transactions that may follow the first one of a session, 0 for any number.
    @ivar line_length_limit: octets of content in a line above which it is broken, 0 for none.
    """

    opening: OpeningRules
    search: SearchRules
    host_pause: float
    tls_loglevel: int
    most_reuses: int
    line_length_limit: int
