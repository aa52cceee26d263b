"""The storage engine: LMDB environment, Arrow batches, catalog, writer, snapshots and the change feed."""
