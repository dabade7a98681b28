"""The REST and WebSocket server of CryoMamba."""
