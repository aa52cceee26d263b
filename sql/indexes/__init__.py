"""Secondary indexes: their statements, their building, and what shows them."""
