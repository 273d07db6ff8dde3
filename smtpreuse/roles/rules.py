"""
What each part goes by, made from main.cf: values, which a process of another role is told in place of the file.
"""

from __future__ import annotations

import msgspec
from attrs import frozen

from smtpreuse.agent.connect import OpeningRules
from smtpreuse.agent.reuse import SearchRules
from smtpreuse.agent.rules import AgentRules
from smtpreuse.agent.session import Limits
from smtpreuse.config.settings import Settings
from smtpreuse.model.reuse import Profile
from smtpreuse.queue.rules import DispatchRules
from smtpreuse.queue.schedule import JITTER, RetryRules
from smtpreuse.queue.sitequeue import SiteRules
from smtpreuse.roles.layout import Layout
from smtpreuse.scache.rules import CacheRules

# How much longer than the pause between two transactions a session rests, in seconds: for the next one to come.
PAUSE_MARGIN = 5.0


@frozen(kw_only=True)
class RoleRules:
    """
    What a child needs; parts of other roles are L{None}.

    @ivar agent: for delivery.
    @ivar cache: for sessions at rest in this process.
    @ivar tls: how many sessions it may hold TLS for; 0 where others hold it.
    """

    agent: AgentRules | None = None
    cache: CacheRules | None = None
    tls: int = 0


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(RoleRules).decode


def role_rules(role: str, settings: Settings, layout: Layout) -> RoleRules:
    """For a child of this role."""
    if role == "tlsproxy":
        return RoleRules(tls=settings.tlsproxy_session_limit)
    if role == "scache":
        return RoleRules(cache=cache_rules(settings))
    return RoleRules(
        agent=agent_rules(settings), cache=None if layout.scache else cache_rules(settings),
        tls=0 if layout.tlsproxy else settings.session_limit,
    )  # fmt: skip


def profile_of(settings: Settings) -> Profile:
    """What all sessions have in common."""
    return Profile(
        helo=settings.smtp_helo_name, source=settings.smtp_bind_address, source6=settings.smtp_bind_address6
    )


def agent_rules(settings: Settings) -> AgentRules:
    """What main.cf says of an agent's work."""
    profile, limits = profile_of(settings), Limits.of(settings)
    return AgentRules(
        opening=opening_rules(settings, profile, limits),
        search=SearchRules(
            profile=profile,
            limits=limits,
            # The second attempt may come so much sooner (RetryRules.next_attempt): in Postfix it goes without TLS.
            fallback_age=(1 - JITTER) * settings.minimal_backoff_time,
            by_family=settings.smtp_address_preference != "any",
            most_uses=settings.smtp_connection_reuse_count_limit,
        ),
        host_pause=settings.minimal_backoff_time / 5,
        tls_loglevel=settings.smtp_tls_loglevel,
        most_reuses=settings.smtp_connection_reuse_count_limit,
        line_length_limit=settings.smtp_line_length_limit,
    )


def opening_rules(settings: Settings, profile: Profile, limits: Limits) -> OpeningRules:
    """What main.cf says of opening a session."""
    return OpeningRules(
        profile=profile,
        limits=limits,
        connect_timeout=settings.smtp_connect_timeout,
        starttls_timeout=settings.smtp_starttls_timeout,
        lifetime=settings.smtp_connection_reuse_time_limit,
        skip_5xx_greeting=settings.smtp_skip_5xx_greeting,
        discard=frozenset(keyword.upper() for keyword in settings.smtp_discard_ehlo_keywords),
    )


def cache_rules(settings: Settings) -> CacheRules:
    """What main.cf says of sessions at rest."""
    return CacheRules(
        idle_limit=resting_time(settings),
        limit=settings.resting_session_limit,
        limit_per_key=settings.resting_session_limit_per_key,
        most_uses=settings.smtp_connection_reuse_count_limit,
    )


def resting_time(settings: Settings) -> float:
    """How long a session rests: where there is a pause between transactions it has to last for that."""
    pause = settings.default_destination_rate_delay
    return max(settings.smtp_connection_cache_time_limit, pause + PAUSE_MARGIN if pause else 0.0)


def dispatch_rules(settings: Settings, profile: Profile) -> DispatchRules:
    """What main.cf says of the queue."""
    return DispatchRules(
        site=SiteRules(
            profile=profile,
            initial=settings.initial_destination_concurrency,
            limit=settings.default_destination_concurrency_limit or settings.session_limit,
            rate_delay=settings.default_destination_rate_delay,
            most_uses=settings.smtp_connection_reuse_count_limit,
            on_demand=settings.smtp_connection_cache_on_demand,
            destinations=frozenset(settings.smtp_connection_cache_destinations),
        ),
        retry=RetryRules(
            minimal_backoff=settings.minimal_backoff_time,
            maximal_backoff=settings.maximal_backoff_time,
            lifetime=settings.maximal_queue_lifetime,
            bounce_lifetime=settings.bounce_queue_lifetime,
            soft_bounce=settings.soft_bounce,
        ),
        active_limit=settings.qmgr_message_active_limit,
        recipient_limit=settings.default_destination_recipient_limit or settings.smtpd_recipient_limit,
        lane_limit=settings.session_limit,
        request_sessions=settings.smtp_mx_session_limit,
    )
