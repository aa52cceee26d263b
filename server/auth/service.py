"""Puts authentication together: options from the configuration, the parts, and the watch on accounts and sessions."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

from server.auth.authenticator import Authenticator
from server.auth.cache import TokenCache
from server.auth.context import AuthContext, SignInLimit
from server.auth.cookies import Cookies
from server.auth.hashing import PasswordThreads
from server.auth.lockout import Strangers
from server.auth.options import AuthOptions
from server.auth.store import FAMILY_KIND, Store
from server.auth.tokens import Tokens
from server.config import Config
from sql.passwords import HashParameters, PolicyOptions
from storage.catalog import USER_KIND
from storage.seams import Clock


def options_of(config: Config) -> AuthOptions:
    """The options that a configuration means."""
    auth = config.auth
    return AuthOptions(
        access_seconds=max(1, round(auth.jwt_expiry_hours * 3600)),
        refresh_seconds=max(1, round(auth.refresh_expiry_hours * 3600)),
        cookie_secure=auth.cookie_secure,
        kalamdb_cookies=config.compat.kalamdb_cookies,
        allow_remote_setup=auth.allow_remote_setup,
        max_failed_logins=auth.max_failed_logins,
        lockout_seconds=auth.lockout_minutes * 60,
        policy=PolicyOptions(
            min_length=auth.min_password_length,
            max_length=auth.max_password_length,
            require_complexity=auth.enforce_password_complexity,
        ),
        parameters=HashParameters(
            memory_kib=auth.argon2_memory_kib,
            iterations=auth.argon2_iterations,
            parallelism=auth.argon2_parallelism,
        ),
    )


def build(
    options: AuthOptions,
    store: Store,
    secret: bytes,
    limit: SignInLimit,
    clock: Clock,
    *,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> AuthContext:
    """Make the parts for one server."""
    cache = TokenCache(options.cached_tokens)
    tokens = Tokens(secret, clock, options.leeway_seconds)
    threads = PasswordThreads(options)
    threads.warm_up()
    return AuthContext(
        options=options,
        store=store,
        clock=clock,
        tokens=tokens,
        authenticator=Authenticator(options, store, tokens, cache, clock),
        threads=threads,
        strangers=Strangers(options),
        cookies=Cookies(options),
        limit=limit,
        cache=cache,
        random_bytes=random_bytes,
    )


def forget_changed(cache: TokenCache, objects: Iterable[tuple[str, str]]) -> None:
    """Forget the verified tokens of every account and session that a commit changed.

    Whoever calls this for every commit, before its submitters are told, may set `cache.watched`.
    """
    for kind, name in objects:
        if kind == USER_KIND:
            cache.forget_user(name)
        elif kind == FAMILY_KIND:
            cache.forget_family(name)
