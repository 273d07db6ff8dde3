"""
All that main.cf says of sessions at rest, in one value: what the cache is given at its start, and anew at a reload.
"""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class CacheRules:
    """
    @ivar idle_limit: seconds that a session may rest (C{smtp_connection_cache_time_limit}).
    @ivar limit: sessions that may rest at a time (C{resting_session_limit}).
    @ivar limit_per_key: sessions of equal keys that may rest at a time (C{resting_session_limit_per_key}).
    @ivar most_uses: as L{may_carry<smtpreuse.tls.carry.may_carry>} takes it (C{smtp_connection_reuse_count_limit}).
    """

    idle_limit: float
    limit: int
    limit_per_key: int
    most_uses: int = 0
