"""Commands that this package adds to `cryomamba`."""
