"""Removing what is no longer needed."""
