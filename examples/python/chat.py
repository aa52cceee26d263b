"""A chat room in a terminal: everybody who runs it sees what the others write, also after the connection was cut.

python chat.py [URL [USER [PASSWORD]]]

Reads lines from standard input and ends with it.
"""

from __future__ import annotations

import asyncio
import sys

import headrace


async def main(url: str, user: str, password: str) -> None:
    async with headrace.AsyncClient(url, user=user, password=password, on_disconnect=print) as db:
        await db.execute("CREATE NAMESPACE IF NOT EXISTS chat")
        await db.execute(
            "CREATE TABLE IF NOT EXISTS chat.messages"
            " (id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(), author TEXT, body TEXT)"
        )
        async with db.live("SELECT author, body FROM chat.messages", last_rows=20) as events:
            listener = asyncio.create_task(show(events))
            print(f"Signed in as {user}. Write something.")
            while line := await asyncio.to_thread(sys.stdin.readline):
                await db.execute("INSERT INTO chat.messages (author, body) VALUES ($1, $2)", [user, line.strip()])
        await listener


async def show(events: headrace.LiveStream) -> None:
    """Print messages as they come."""
    async for event in events:
        if isinstance(event, (headrace.Snapshot, headrace.Change)):
            for row in event.rows:
                print(f"{row['author']}: {row['body']}")


if __name__ == "__main__":
    defaults = ["http://127.0.0.1:2900", "admin", "AdminPass123!"]
    asyncio.run(main(*sys.argv[1:], *defaults[len(sys.argv) - 1 :]))
