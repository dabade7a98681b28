"""Commands that need the server's package; `cryomamba` mounts them."""
