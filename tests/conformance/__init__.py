"""The API reference, statement by statement; a package, so that its servers end with its last test."""
