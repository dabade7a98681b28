"""The REST and WebSocket server."""
