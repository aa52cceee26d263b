"""An open table on a real S3 server, published by a running server and read by another engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.test_storages import create, finish, rows, told
from tests.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, object_store
from tests.sql.lake.second_engines import delta_rs


@pytest.mark.slow
def test_an_open_table_in_an_object_store(serve: Serve, tmp_path: Path) -> None:
    with object_store(tmp_path) as store:
        server = serve().set_up()
        told(server, create(store, "far", "open"))
        server.sql("CREATE NAMESPACE app")
        server.sql("CREATE TABLE app.t (id BIGINT PRIMARY KEY, x TEXT) WITH (STORAGE_ID = 'far')")
        for start in range(0, 24, 2):  # one more than a checkpoint needs
            server.sql(f"INSERT INTO app.t SELECT i, 'v' || i FROM range({start}, {start + 2}) r(i)")
            server.sql(f"DELETE FROM app.t WHERE id = {start}")
            finish(server, told(server, "STORAGE FLUSH TABLE app.t"))
        server.sql("DELETE FROM app.t WHERE id = 1; UPDATE app.t SET x = 'new' WHERE id = 5")
        finish(server, told(server, "STORAGE FLUSH TABLE app.t"))
        assert f"{BUCKET}/open/app/t/_delta_log/_last_checkpoint" in store.objects("open")
        options = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{store.endpoint}", "AWS_ALLOW_HTTP": "true",
        }  # fmt: skip
        root = f"s3://{BUCKET}/open/app/t"
        found = delta_rs(root, "SELECT id, x FROM lake ORDER BY id", storage_options=options)
        assert [[row["id"], row["x"]] for row in found] == rows(server, "SELECT id, x FROM app.t ORDER BY id")
        assert len(found) == 11
