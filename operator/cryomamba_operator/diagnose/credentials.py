"""Why a job has no credentials for the object store."""

from cryomamba_crds.failures import FailureCode
from cryomamba_operator.diagnose.finding import Finding, Patience, finding
from cryomamba_operator.settings import variable
from cryomamba_operator.sts import StsError, Trouble


def no_credentials(error: StsError) -> Finding:
    """Return what the object store's refusal of temporary credentials means.

    A store that is away comes back; with all else, only the jobs at the head of the queue fail with it.
    """
    patience, reason, message, hint = _TROUBLES[error.trouble]
    return finding(reason, FailureCode.SERVICE_UNAVAILABLE, f"{message} ({error}).", hint, patience)


def secret_name_taken(name: str) -> Finding:
    """Somebody's Secret has the name that the job's would have."""
    return finding(
        "SecretNameTaken",
        FailureCode.CONFLICT,
        f"A Secret named {name} that is not CryoMamba's exists in the job's namespace.",
        "It is left alone. Submit the job under another name, or remove the Secret.",
        Patience.NONE,
    )


_TROUBLES = {
    Trouble.UNREACHABLE: (
        Patience.PLACEMENT,
        "StoreUnreachable",
        "The object store does not answer when it is asked for the job's credentials",
        (
            "The job starts by itself when the store is back. Whoever runs the cluster can check the operator's "
            f"settings {variable('s3_endpoint')} and {variable('s3_sts_endpoint')}."
        ),
    ),
    Trouble.KEYS: (
        Patience.CONFIGURATION,
        "NoStoreKeys",
        "The operator's own keys to the object store cannot be read",
        "Whoever runs the cluster can check the Secret that the operator mounts.",
    ),
    Trouble.DENIED: (
        Patience.CONFIGURATION,
        "StoreKeysRefused",
        "The object store does not accept the operator's own keys",
        (
            f"Whoever runs the cluster can correct the files that {variable('s3_access_key_file')} and "
            f"{variable('s3_secret_key_file')} name; their user needs the right to assume a role."
        ),
    ),
    Trouble.ABSENT: (
        Patience.CONFIGURATION,
        "NoTemporaryCredentials",
        "The object store gives no temporary credentials: it has no STS where it was asked",
        (
            f"Whoever runs the cluster can correct {variable('s3_sts_endpoint')}, or, for a store without STS, set "
            f"{variable('s3_credentials')} to `shared` and name a Secret."
        ),
    ),
    Trouble.REFUSED: (
        Patience.CONFIGURATION,
        "CredentialsRefused",
        "The object store refuses the job temporary credentials",
        (
            "Whoever runs the cluster can check the operator's settings "
            f"{variable('s3_role_arn')} and {variable('s3_credentials_seconds')}, whose bounds are the store's."
        ),
    ),
}
