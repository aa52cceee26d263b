"""Open tables: the cold files of each table as a Delta Lake table that other engines read in place."""
