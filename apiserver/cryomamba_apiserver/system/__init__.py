"""The server itself: is it well, what can it do."""
