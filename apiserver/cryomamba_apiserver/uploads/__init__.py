"""Uploading a volume in parts."""
