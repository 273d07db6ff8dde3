"""
Parts that stand in the main process or in one of their own: made in the same way in both.
"""

from __future__ import annotations

from random import Random

from smtpreuse.agent.connect import Connector
from smtpreuse.agent.lane import Agent
from smtpreuse.agent.reuse import Finder
from smtpreuse.agent.rules import AgentRules
from smtpreuse.interfaces import IConnectionCache, IHostMemory, IMailLog, ITLSProxy
from smtpreuse.roles.reactor import IServiceReactor


def make_agent(
    rules: AgentRules, reactor: IServiceReactor, cache: IConnectionCache, proxy: ITLSProxy, hosts: IHostMemory,
    maillog: IMailLog,
) -> Agent:  # fmt: skip
    """An agent, over whichever bodies the seams have in its process."""
    connector = Connector(reactor, reactor, proxy, maillog, rules.opening)
    finder = Finder(cache, connector, hosts, maillog, reactor, Random(), rules.search)
    return Agent(
        finder, cache, maillog, reactor, tls_loglevel=rules.tls_loglevel, most_reuses=rules.most_reuses,
        line_length_limit=rules.line_length_limit,
    )  # fmt: skip
