"""
Tests of L{smtpreuse.roles.assembly}. The parts at work together are tested in C{tests.system}.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from attrs import evolve
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from smtpreuse.agent.connect import OpeningRules
from smtpreuse.agent.reuse import SearchRules
from smtpreuse.agent.rules import AgentRules
from smtpreuse.agent.session import Limits
from smtpreuse.config.load import settings_of
from smtpreuse.model.reuse import Profile
from smtpreuse.queue.rules import DispatchRules
from smtpreuse.queue.schedule import RetryRules
from smtpreuse.queue.sitequeue import SiteRules
from smtpreuse.roles.assembly import (
    House,
    assemble,
)
from smtpreuse.roles.reactor import IServiceReactor
from smtpreuse.roles.rules import (
    PAUSE_MARGIN,
    agent_rules,
    cache_rules,
    dispatch_rules,
    opening_rules,
    profile_of,
    resting_time,
)
from smtpreuse.scache.rules import CacheRules
from smtpreuse.smtp.client import Verb
from tests.control.wire import Acts
from tests.peers import missing

PROFILE = Profile(helo="client.example.com")


class RulesTests(SynchronousTestCase):
    """Each parameter gets to the rule that it is for, and to no other."""

    def test_dispatch(self) -> None:
        """What the queue does."""
        settings = settings_of(
            initial_destination_concurrency="3", default_destination_concurrency_limit="17",
            default_destination_rate_delay="2s", smtp_connection_reuse_count_limit="11",
            smtp_connection_cache_on_demand="no", smtp_connection_cache_destinations="example.com, example.test",
            minimal_backoff_time="21s", maximal_backoff_time="22s", maximal_queue_lifetime="23s",
            bounce_queue_lifetime="20s", soft_bounce="yes", qmgr_message_active_limit="31",
            default_destination_recipient_limit="32", session_limit="33", smtp_mx_session_limit="34",
        )  # fmt: skip
        site = SiteRules(
            profile=PROFILE, initial=3, limit=17, rate_delay=2.0, most_uses=11, on_demand=False,
            destinations=frozenset({"example.com", "example.test"}),
        )  # fmt: skip
        retry = RetryRules(
            minimal_backoff=21.0, maximal_backoff=22.0, lifetime=23.0, bounce_lifetime=20.0, soft_bounce=True
        )
        self.assertEqual(dispatch_rules(settings, PROFILE), DispatchRules(
            site=site, retry=retry, active_limit=31, recipient_limit=32, lane_limit=33, request_sessions=34
        ))  # fmt: skip

    def test_no_limit(self) -> None:
        """0 leaves the limits that hold for all sites, and for all messages."""
        rules = dispatch_rules(settings_of(
            default_destination_concurrency_limit="0", default_destination_recipient_limit="0", session_limit="33",
            smtpd_recipient_limit="44",
        ), PROFILE)  # fmt: skip
        self.assertEqual((rules.site.limit, rules.recipient_limit), (33, 44))

    def test_opening(self) -> None:
        """How sessions are opened; keywords are compared in upper case."""
        settings = settings_of(
            smtp_connect_timeout="41s", smtp_starttls_timeout="42s", smtp_connection_reuse_time_limit="43s",
            smtp_skip_5xx_greeting="no", smtp_discard_ehlo_keywords="chunking, Pipelining",
        )  # fmt: skip
        limits = Limits.of(settings)
        self.assertEqual(limits.replies[Verb.STARTTLS], 42.0)
        self.assertEqual(opening_rules(settings, PROFILE, limits), OpeningRules(
            profile=PROFILE, limits=limits, connect_timeout=41.0, starttls_timeout=42.0, lifetime=43.0,
            skip_5xx_greeting=False, discard=frozenset({"CHUNKING", "PIPELINING"}),
        ))  # fmt: skip

    def test_agent(self) -> None:
        """How an agent works: all in one value."""
        settings = settings_of(
            smtp_helo_name="client.example.com", minimal_backoff_time="100s", smtp_address_preference="ipv6",
            smtp_tls_loglevel="2", smtp_connection_reuse_count_limit="11", smtp_line_length_limit="998",
        )  # fmt: skip
        limits = Limits.of(settings)
        self.assertEqual(agent_rules(settings), AgentRules(
            opening=opening_rules(settings, PROFILE, limits),
            search=SearchRules(profile=PROFILE, limits=limits, fallback_age=90.0, by_family=True, most_uses=11),
            host_pause=20.0, tls_loglevel=2, most_reuses=11, line_length_limit=998,
        ))  # fmt: skip

    def test_profile(self) -> None:
        """Where connections come from, and the name that is given."""
        settings = settings_of(
            smtp_helo_name="client.example.com", smtp_bind_address="192.0.2.7", smtp_bind_address6="[2001:db8::7]"
        )
        self.assertEqual(profile_of(settings), evolve(PROFILE, source="192.0.2.7", source6="2001:db8::7"))

    def test_cache(self) -> None:
        """How sessions rest."""
        settings = settings_of(
            smtp_connection_cache_time_limit="12s", resting_session_limit="7", resting_session_limit_per_key="3",
            smtp_connection_reuse_count_limit="11",
        )  # fmt: skip
        self.assertEqual(cache_rules(settings), CacheRules(idle_limit=12.0, limit=7, limit_per_key=3, most_uses=11))

    def test_resting(self) -> None:
        """A session rests for the cache's limit, and where there is a pause between transactions for longer than it."""
        for limit, delay, expected in (("15s", "0s", 15.0), ("15s", "60s", 60.0 + PAUSE_MARGIN), ("90s", "60s", 90.0)):
            settings = settings_of(smtp_connection_cache_time_limit=limit, default_destination_rate_delay=delay)
            self.assertEqual(resting_time(settings), expected)


class AssembleTests(SynchronousTestCase):
    """All parts are made, and nothing is begun."""

    def setUp(self) -> None:
        try:
            version("smtpreuse")
        except PackageNotFoundError:
            raise missing("an installed copy of smtpreuse (tox makes one)") from None
        alsoProvides(reactor, IServiceReactor)
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def assembled(self, log: str) -> House:
        """Of settings whose files are all here; the socket's path, which may be too long here, nobody opens."""
        settings = settings_of(
            queue_directory=str(self.directory / "spool"), maillog_file=str(self.directory / log),
            control_socket="/nonexistent/control",
        )  # fmt: skip
        return assemble(settings, IServiceReactor(reactor), Acts())

    def test_nothing_runs(self) -> None:
        """No thread, no timer, no descriptor in the reactor; of files only the operator's log."""
        before = reactor.getDelayedCalls(), reactor.getReaders()  # type: ignore[attr-defined]  # the real one has them
        house = self.assembled("log")
        self.addCleanup(house.maillog.close)
        after = reactor.getDelayedCalls(), reactor.getReaders()  # type: ignore[attr-defined]  # the real one has them
        self.assertEqual((before, house.pool.started), (after, False))
        self.assertEqual(os.listdir(self.directory), ["log"])

    def test_no_log(self) -> None:
        """Where the operator's log cannot be opened there is no service."""
        self.assertRaises(OSError, self.assembled, "missing/log")
