"""What went wrong with a job, from facts: a reason, a failure with a hint, and how long to put up with it.

A module for each thing that can go wrong: `refused` (Kubernetes makes no pod), `placement` (no node takes it),
`starting` (its container does not start), `ended` (it ran and ended badly), `bounds` (the operator's own limits).
"""

from cryomamba_operator.diagnose.finding import Finding, Patience

__all__ = ["Finding", "Patience"]
