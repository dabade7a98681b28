"""The runner: one task in, labels and statistics out."""
