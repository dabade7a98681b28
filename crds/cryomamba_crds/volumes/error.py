"""The one way in which a file that is no usable volume is told."""

from cryomamba_crds.failures import FailureCode, FailureError


class VolumeError(FailureError):
    """A file, or its voxels, cannot be segmented; ``failure.details["field"]`` names what is wrong with it.

    Never retryable: the same bytes fail again. Over HTTP it is answered with 422.
    """

    def __init__(self, field: str, message: str, *, hint: str) -> None:
        """Refuse a file.

        Args:
            field: The header field, or one of ``size``, ``format``, ``gzip``, ``voxels``.
            message: What was found and what was expected, in words that a microscopist reads.
            hint: What to do next.
        """
        super().__init__(FailureCode.VALIDATION_ERROR, message, hint=hint, retryable=False, details={"field": field})
        self.field = field
