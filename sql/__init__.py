"""The SQL layer: dialect, binder, planner, executor and functions over the storage engine."""
