"""Vector search: distances, exact search, and approximate indexes that are followed by exact ranking."""
