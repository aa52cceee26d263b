"""Stock that is always up to date: a writer books sales, and a table in memory follows without asking again.

python stock.py [URL [USER [PASSWORD]]]
"""

from __future__ import annotations

import random
import sys

import headrace


def main(url: str, user: str, password: str) -> None:
    with headrace.connect(url, user=user, password=password, namespace="stock") as db:
        db.execute("CREATE NAMESPACE IF NOT EXISTS stock")
        db.execute("CREATE TABLE IF NOT EXISTS stock.items (name TEXT PRIMARY KEY, pieces INT NOT NULL)")
        db.execute("DELETE FROM items WHERE true")
        db.insert("items", [{"name": name, "pieces": 20} for name in ("lamp", "chair", "table")])
        with db.live_rows("SELECT name, pieces FROM stock.items WHERE pieces < $1", [10]) as scarce:
            scarce.ready(timeout=10)
            while len(scarce.rows) < 3:
                seen = scarce.version
                name = random.choice(["lamp", "chair", "table"])
                db.execute("UPDATE items SET pieces = pieces - 1 WHERE name = $1 AND pieces > 0", [name])
                before = db.query("SELECT count(*) FROM items WHERE pieces < 10").scalar()
                while len(scarce.rows) < before:
                    scarce.changed(seen, timeout=10)
                    seen = scarce.version
            for name, row in sorted(scarce.rows.items()):
                print(f"{name}: {row['pieces']} left")


if __name__ == "__main__":
    defaults = ["http://127.0.0.1:2900", "admin", "AdminPass123!"]
    main(*sys.argv[1:], *defaults[len(sys.argv) - 1 :])
