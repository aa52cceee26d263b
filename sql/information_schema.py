"""information_schema: what tools ask to find out which tables there are, as far as the caller may read them."""

from __future__ import annotations

from sql.information_constraints import CONSTRAINT_TABLES
from sql.information_others import OTHER_TABLES
from sql.information_privileges import PRIVILEGE_TABLES
from sql.information_relations import RELATION_TABLES
from sql.session_functions import CATALOG_NAME

INFORMATION_SCHEMA_TABLES = (*RELATION_TABLES, *CONSTRAINT_TABLES, *PRIVILEGE_TABLES, *OTHER_TABLES)

__all__ = ["CATALOG_NAME", "INFORMATION_SCHEMA_TABLES"]
