"""Live queries: a SELECT that keeps answering, commit by commit. It knows nothing of sockets."""
