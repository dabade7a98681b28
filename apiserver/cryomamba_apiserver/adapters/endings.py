"""What a job is told where its runner did not say why it ended."""

from cryomamba_crds.failures import Failure, FailureCode


def without_result() -> Failure:
    """The runner succeeded and left nothing."""
    return Failure(
        code=FailureCode.INTERNAL_ERROR,
        message="The process that ran the job ended well but gave no result.",
        hint="Start the job again; please report it if this happens twice.",
        retryable=True,
    )


def gave_up(crashes: int) -> Failure:
    """The server was killed too often while the job ran."""
    return Failure(
        code=FailureCode.INTERNAL_ERROR,
        message=f"The server was killed in the middle of this job {crashes} times.",
        hint="See whether the machine runs out of memory while the job runs; then start the job again.",
        retryable=True,
    )


def not_run(error: Exception) -> Failure:
    """The server itself could not run the job."""
    return Failure(
        code=FailureCode.INTERNAL_ERROR,
        message=f"The job could not be run: {type(error).__name__}.",
        hint="The server's log has the details; start the job again once the cause is mended.",
        retryable=True,
    )
