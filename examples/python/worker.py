"""A worker: confirms every new order, in a group that shares the work. Start several, kill them, start them again.

python worker.py [URL [USER [PASSWORD [SECONDS]]]]

Ends with Ctrl-C or SIGTERM: what is done is acknowledged, the rest goes to the others at once. Ends by itself when no
order has come for so many seconds (5).
"""

from __future__ import annotations

import random
import signal
import sys

import headrace


def main(url: str, user: str, password: str, seconds: str) -> None:
    with headrace.connect(url, user=user, password=password, namespace="mail") as db:
        set_up(db)
        consumer = db.topic("orders").consume(
            "confirmations", start="earliest", idle_seconds=float(seconds), visibility_timeout=30
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: consumer.stop())
        policy = headrace.RetryPolicy(attempts=5, base_seconds=0.1, on_exhausted="skip")
        consumer.run(confirm, retry=policy)
    print("All orders are confirmed.")


def confirm(message: headrace.SyncMessage) -> None:
    """Pretend to send a mail, over a line that fails now and then."""
    if random.random() < 0.3:
        raise ConnectionError("the mail server is busy")
    order = message.json()
    again = f" (delivered {message.delivery_count} times)" if message.delivery_count > 1 else ""
    print(f"To {order['customer']}: thank you for ordering {order['item']}{again}")


def set_up(db: headrace.Client) -> None:
    """A table, a topic of what is inserted into it, and some orders."""
    db.execute("CREATE NAMESPACE IF NOT EXISTS mail")
    columns = "id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(), customer TEXT, item TEXT"
    db.execute(f"CREATE TABLE IF NOT EXISTS mail.purchases ({columns})")
    known = db.query("SELECT count(*) FROM system.topics WHERE topic_id = 'mail.orders'").scalar()
    if not known:
        db.execute("CREATE TOPIC mail.orders PARTITIONS 4 WITH (max_deliveries = 5)")
        db.execute("ALTER TOPIC mail.orders ADD SOURCE mail.purchases ON INSERT")
    db.insert("purchases", [{"customer": name, "item": item} for name in ("Ann", "Bob") for item in ("tea", "milk")])


if __name__ == "__main__":
    defaults = ["http://127.0.0.1:2900", "admin", "AdminPass123!", "5"]
    main(*sys.argv[1:], *defaults[len(sys.argv) - 1 :])
