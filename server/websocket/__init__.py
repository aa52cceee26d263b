"""The WebSocket transport: uvicorn's protocol for upgraded connections, and what sessions write frames to."""
