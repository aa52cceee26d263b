"""Who a bearer request speaks for: from the cache, or from the token, the account and the session behind it.

The checks of a token that is not in the cache, in order: our signature, issuer and time; an access token, not a refresh
token; an account of that name; root has a password; the account's role is still the token's role; the session is open
and was opened with the present password; the account is not locked. Basic credentials and cookies are not read here.
"""

from __future__ import annotations

import logging

from server.auth import errors
from server.auth.cache import TokenCache, VerifiedToken
from server.auth.lockout import locked_until
from server.auth.options import ROOT, SECOND, AuthOptions
from server.auth.sessions import find_open_family, seconds_until
from server.auth.store import Reader, Store, find_account, role_of
from server.auth.tokens import TokenRefused, Tokens, TokenTooOld, TokenType
from server.exchange import Exchange
from sql.identity import Identity, Role
from storage.catalog import UserDef
from storage.errors import StorageError
from storage.seams import Clock

_log = logging.getLogger(__name__)


class Authenticator:
    """Checks `Authorization` headers; synchronous, and without I/O on a cache hit."""

    def __init__(self, options: AuthOptions, store: Store, tokens: Tokens, cache: TokenCache, clock: Clock) -> None:
        self._options = options
        self._store = store
        self._tokens = tokens
        self._cache = cache
        self._clock = clock
        self._leeway_us = options.leeway_seconds * SECOND

    def authenticate(self, authorization: bytes | None, exchange: Exchange) -> Identity:
        """The identity behind an `Authorization` header (None: there is none); raises `server.errors.AuthError`."""
        if authorization is None:
            raise errors.missing_authorization()
        identity = self._identify(authorization, local=exchange.loopback)
        exchange.user = identity.user
        return identity

    def authenticate_token(self, token: str, *, local: bool) -> Identity:
        """The identity behind an access token that came by other ways than the header; raises AuthError."""
        return self.verify_token(token, local=local).identity

    def verify_token(self, token: str, *, local: bool) -> VerifiedToken:
        """What an access token stands for, with its session and expiry, for those who outlive one request.

        Raises AuthError.
        """
        return self._find(b"Bearer " + token.encode("utf-8", "surrogatepass"), local=local)

    def needs_setup(self) -> bool:
        """Whether nobody has set a password for `root` yet."""
        with self._store.snapshot() as view:
            return lacks_setup(view)

    def _identify(self, authorization: bytes, *, local: bool) -> Identity:
        return self._find(authorization, local=local).identity

    def _find(self, authorization: bytes, *, local: bool) -> VerifiedToken:
        entry = self._cache.get(authorization)
        if entry is None:
            entry = self._verify(authorization)
        elif entry.expires_us <= self._clock.now_us():
            raise errors.token_expired()
        elif entry.seq != self._store.last_seq and not self._cache.watched:
            self._verify_again(entry)
        if entry.local_only and not local:
            raise errors.remote_access_denied()
        return entry

    def _verify(self, authorization: bytes) -> VerifiedToken:
        """Make every check, and remember a token that passes."""
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise errors.invalid_credentials()
        version = self._cache.version
        seq = self._store.last_seq
        try:
            claims = self._tokens.read(token.strip())
        except TokenTooOld:
            raise errors.token_expired() from None
        except TokenRefused:
            raise errors.invalid_credentials() from None
        if claims.token_type is not TokenType.ACCESS:
            raise errors.invalid_credentials()
        account = self._check_account(claims.sub, claims.role, claims.family)
        entry = VerifiedToken(
            identity=Identity(account.user_id, Role(account.role)),
            family=claims.family,
            expires_us=claims.exp * SECOND + self._leeway_us,
            local_only=is_local_only(account, self._options),
            seq=seq,
        )
        self._cache.put(authorization, entry, version)
        return entry

    def _verify_again(self, entry: VerifiedToken) -> None:
        """Look at the account and the session of a known token after other commits."""
        seq = self._store.last_seq
        self._check_account(entry.identity.user, entry.identity.role, entry.family)
        entry.seq = seq

    def _check_account(self, user: str, role: str, family: str) -> UserDef:
        """The account of a token's name, if the token may still speak for it."""
        try:
            with self._store.snapshot() as view:
                account = find_account(view, user)
                is_open = account is not None and find_open_family(view, family, account) is not None
        except StorageError:
            _log.exception("the account of a token cannot be read")
            raise errors.authentication_error() from None
        if account is None:
            raise errors.invalid_credentials()
        if account.user_id == ROOT and account.password_hash is None:
            raise errors.setup_required()
        if account.role != role or role_of(account) is None or not is_open:
            raise errors.invalid_credentials()
        now = self._clock.now_us()
        until = locked_until(account, now)
        if until is not None:
            raise errors.token_of_locked_account(seconds_until(until, now))
        return account


def is_local_only(account: UserDef, options: AuthOptions) -> bool:
    """Whether an account may be used from this machine only: root, and every account of role system."""
    return not options.allow_remote_root and (account.user_id == ROOT or account.role == Role.SYSTEM)


def lacks_setup(view: Reader) -> bool:
    """Whether root has no password."""
    root = find_account(view, ROOT)
    return root is None or root.password_hash is None


def require_role(identity: Identity, least: Role) -> None:
    """Raise the error of bearer routes unless the role is at least that one."""
    if identity.role.rank < least.rank:
        raise errors.insufficient_permissions()
