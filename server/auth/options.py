"""What authentication can be told by the configuration."""

from __future__ import annotations

import msgspec

from sql.passwords import DEFAULT_PARAMETERS, DEFAULT_POLICY, HashParameters, PolicyOptions

SECOND = 1_000_000
"""Microseconds in a second: all times here are microseconds since the epoch."""

ROOT = "root"
"""The account that exists from the first start, with role system."""


class AuthOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and rules of authentication; the defaults are those of `config.toml`."""

    access_seconds: int = 24 * 3600
    refresh_seconds: int = 7 * 24 * 3600
    leeway_seconds: int = 60
    """How long after its expiry a token is still taken, for clocks that differ."""
    refresh_grace_seconds: int = 10
    """How long the previous refresh token, used again, is refused only and does not yet end the session."""
    cookie_secure: bool = True
    kalamdb_cookies: bool = True
    allow_remote_setup: bool = False
    allow_remote_root: bool = False
    max_failed_logins: int = 5
    lockout_seconds: int = 15 * 60
    attempts_per_ip_per_second: int = 20
    hash_threads: int = 2
    hash_queue: int = 64
    """Password checks that may run or wait at one time; more are turned away."""
    cached_tokens: int = 10_000
    policy: PolicyOptions = DEFAULT_POLICY
    parameters: HashParameters = DEFAULT_PARAMETERS
