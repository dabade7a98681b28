"""CryoMamba's Python SDK and command line."""
