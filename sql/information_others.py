"""information_schema: what Headrace has one of (catalog, character set, collation) or none of (triggers, routines, …).

Tools ask for them before anything else and take a missing table for a broken server, so they are there and empty.
"""

from __future__ import annotations

from sql.information_listing import texts
from sql.session_functions import CATALOG_NAME
from sql.system_tables import INFORMATION_SCHEMA, Rows, SystemColumn, SystemContext, SystemTable
from storage.views import ReadView


def _nothing(view: ReadView, context: SystemContext) -> Rows:
    return ()


def _catalog_rows(view: ReadView, context: SystemContext) -> Rows:
    return [(CATALOG_NAME,)]


def _character_set_rows(view: ReadView, context: SystemContext) -> Rows:
    return [(None, None, "UTF8", "UCS", "UTF8", CATALOG_NAME, None, "binary")]


def _collation_rows(view: ReadView, context: SystemContext) -> Rows:
    return [(CATALOG_NAME, None, "binary", "NO PAD")]


_TYPE = (
    "character_maximum_length character_octet_length character_set_catalog character_set_schema character_set_name "
    "collation_catalog collation_schema collation_name numeric_precision numeric_precision_radix numeric_scale "
    "datetime_precision interval_type interval_precision"
)
_NUMBERS = (
    "action_order ordinal_position numeric_precision numeric_precision_radix numeric_scale datetime_precision "
    "character_maximum_length character_octet_length interval_precision max_dynamic_result_sets maximum_cardinality"
)
_ABSENT: dict[str, tuple[SystemColumn, ...]] = {
    name: texts(columns, numbers=_NUMBERS)
    for name, columns in {
        "triggers": "trigger_catalog trigger_schema trigger_name event_manipulation event_object_catalog "
        "event_object_schema event_object_table action_order action_condition action_statement action_orientation "
        "action_timing action_reference_old_table action_reference_new_table action_reference_old_row "
        "action_reference_new_row created",
        "routines": "specific_catalog specific_schema specific_name routine_catalog routine_schema routine_name "
        f"routine_type data_type {_TYPE} type_udt_catalog type_udt_schema type_udt_name routine_body "
        "routine_definition external_name external_language parameter_style is_deterministic sql_data_access "
        "is_null_call schema_level_routine max_dynamic_result_sets security_type created last_altered",
        "parameters": "specific_catalog specific_schema specific_name ordinal_position parameter_mode is_result "
        f"as_locator parameter_name data_type {_TYPE} udt_catalog udt_schema udt_name maximum_cardinality "
        "dtd_identifier parameter_default",
        "sequences": "sequence_catalog sequence_schema sequence_name data_type numeric_precision "
        "numeric_precision_radix numeric_scale start_value minimum_value maximum_value increment cycle_option",
        "domains": f"domain_catalog domain_schema domain_name data_type {_TYPE} domain_default udt_catalog udt_schema "
        "udt_name maximum_cardinality dtd_identifier",
        "element_types": "object_catalog object_schema object_name object_type collection_type_identifier data_type "
        f"{_TYPE} udt_catalog udt_schema udt_name maximum_cardinality dtd_identifier",
        "user_defined_types": "user_defined_type_catalog user_defined_type_schema user_defined_type_name "
        "user_defined_type_category is_instantiable is_final data_type",
        "routine_privileges": "grantor grantee specific_catalog specific_schema specific_name routine_catalog "
        "routine_schema routine_name privilege_type is_grantable",
    }.items()
}

OTHER_TABLES = (
    SystemTable(INFORMATION_SCHEMA, "information_schema_catalog_name", texts("catalog_name", always="catalog_name"),
                _catalog_rows, admin_only=False),
    SystemTable(
        INFORMATION_SCHEMA, "character_sets",
        texts("character_set_catalog character_set_schema character_set_name character_repertoire form_of_use "
              "default_collate_catalog default_collate_schema default_collate_name"),
        _character_set_rows, admin_only=False,
    ),
    SystemTable(INFORMATION_SCHEMA, "collations",
                texts("collation_catalog collation_schema collation_name pad_attribute"), _collation_rows,
                admin_only=False),
    *(SystemTable(INFORMATION_SCHEMA, name, columns, _nothing, admin_only=False) for name, columns in _ABSENT.items()),
)  # fmt: skip
