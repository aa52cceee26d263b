-- A room is a value, not a table: everybody who is in one has a live query with `room = $1`.
CREATE NAMESPACE IF NOT EXISTS chat;

CREATE SHARED TABLE IF NOT EXISTS chat.messages (
    id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(),
    room TEXT NOT NULL,
    author TEXT NOT NULL DEFAULT CURRENT_USER(),
    body TEXT NOT NULL CHECK (length(body) <= 2000),
    sent_at TIMESTAMP NOT NULL DEFAULT NOW()
) WITH (ACCESS_LEVEL = 'PUBLIC');

-- Writing a SHARED table takes the role `service` or above.
CREATE USER 'ann' WITH PASSWORD 'Ann-likes-water-1' ROLE service;
CREATE USER 'ben' WITH PASSWORD 'Ben-likes-wheels-2' ROLE service;
