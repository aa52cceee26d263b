"""What a user imports and types: the `headrace` command (and, later, the Python client)."""
