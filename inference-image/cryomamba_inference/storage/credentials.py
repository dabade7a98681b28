"""Where a runner's keys to a bucket are: in its environment, or in the files of a mounted Secret."""

from collections.abc import Mapping
from pathlib import Path

from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider, StaticProvider

from cryomamba_crds import pod
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.task import ACCESS_KEY_VARIABLE, SECRET_KEY_VARIABLE, SESSION_TOKEN_VARIABLE

_KUBELETS_LINK = "..data"
"""To the folder with the newest files; kubelet replaces it in one step, so what lies behind it belongs together."""


class FileCredentials(Provider):
    """Reads the files for each request, since their content changes when temporary credentials are renewed.

    Args:
        folder: With the files that `cryomamba_crds.pod` names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def retrieve(self) -> Credentials:
        """Return what the files say now.

        Raises:
            FailureError: They cannot be read.
        """
        link = self._folder / _KUBELETS_LINK
        folder = link.resolve() if link.exists() else self._folder
        token = folder / pod.SESSION_TOKEN_FILE
        return Credentials(
            access_key=self._read(folder / pod.ACCESS_KEY_FILE),
            secret_key=self._read(folder / pod.SECRET_KEY_FILE),
            session_token=self._read(token) if token.exists() else None,
        )

    def _read(self, path: Path) -> str:
        try:
            text = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable(path.name, f"cannot be read ({type(error).__name__})") from None
        if not text:
            raise self._unusable(path.name, "is empty")
        return text

    def _unusable(self, name: str, why: str) -> FailureError:
        return FailureError(
            FailureCode.SERVICE_UNAVAILABLE,
            f"The credentials for the object store are not to be had: {self._folder / name} {why}.",
            hint=f"Whoever runs the cluster can put {pod.ACCESS_KEY_FILE} and {pod.SECRET_KEY_FILE} into the Secret "
            "that pods mount there.",
            retryable=False,
        )


def find_credentials(environment: Mapping[str, str]) -> Provider:
    """Return the keys that the environment holds, or names a folder of.

    Raises:
        FailureError: There are none.
    """
    if folder := environment.get(pod.CREDENTIALS_VARIABLE):
        return FileCredentials(Path(folder))
    for name in (ACCESS_KEY_VARIABLE, SECRET_KEY_VARIABLE):
        if not environment.get(name):
            raise FailureError(
                FailureCode.SERVICE_UNAVAILABLE,
                f"The runner was started without {name}.",
                hint="Whoever starts runners on an S3 store puts its credentials into their environment.",
                retryable=False,
            )
    return StaticProvider(
        environment[ACCESS_KEY_VARIABLE], environment[SECRET_KEY_VARIABLE], environment.get(SESSION_TOKEN_VARIABLE)
    )
