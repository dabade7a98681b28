"""Fulfilments of the ports: a directory and SQLite on a workstation."""
