"""Planes that are done, left in the object store while a job runs, for the attempt that comes after an interruption.

The engine gives the same bytes from any plane on, and statistics are taken from labels, so what is kept are labels,
and probabilities where these are wanted.
"""

from cryomamba_inference.checkpoint.keeping import Checkpoint, Restored

__all__ = ["Checkpoint", "Restored"]
