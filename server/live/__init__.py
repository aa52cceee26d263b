"""Live queries as clients see them: sessions on WebSockets, event streams over HTTP.

    upgrade   who may open a socket, and who it is already (header, subprotocol, cookie)
    session   one socket: sign-in, messages, subscriptions, heartbeat; the sink of `sql.live`
    messages  what goes over it, as structs
    encoding  structs and deltas as frames: JSON or MessagePack, gzip or not, shared between subscribers
    service   all sessions of the server: heartbeat, limits, changed accounts, shutdown
    events    the same changes as server-sent events

What a live query is and when it changes is the business of `sql.live`. `docs/live.md` tells the client's side.
"""
