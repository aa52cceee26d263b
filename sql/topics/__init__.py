"""Topics as SQL sees them: conditions of sources, keys and payloads of messages, and consumers that wait for them."""
