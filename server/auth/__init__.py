"""Authentication: passwords at the door, tokens after it, and everything that ends a token early.

    login  ->  one argon2id check in a small thread pool  ->  a session (refresh family, stored)  ->  two JWTs
    bearer ->  verified-token cache (about a microsecond)  or  signature + account + session from a snapshot
    change of an account or session (any commit)  ->  the feed  ->  its cached tokens are forgotten

What a token says is never enough: the account must exist with the same role, and the session that the token belongs
to must be open and made with the account's present password. `docs/authentication.md` tells the user's side.
"""
