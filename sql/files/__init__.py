"""FILE columns: FileRefs, `FILE("name")` in statements, uploads with their statement, and who may download what."""
