"""Tokens: who issues them, and how they are checked."""
