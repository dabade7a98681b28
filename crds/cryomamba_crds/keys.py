"""Keys of objects in the store (design section 5). No name that a client sends is ever part of one."""


def upload_session(upload_id: str) -> str:
    """Record of an upload under way."""
    return f"uploads/{upload_id}/session.json"


def file_volume(file_id: str) -> str:
    """The bytes of an uploaded volume."""
    return f"files/{file_id}/volume"


def file_record(file_id: str) -> str:
    """What is known about an uploaded volume."""
    return f"files/{file_id}/file.json"


def attempt_prefix(job_uid: str, attempt: int) -> str:
    """Where one attempt (1-based) writes its artifacts and previews."""
    return f"jobs/{job_uid}/{attempt}/"


def job_manifest(job_uid: str) -> str:
    """The list of artifacts, written once by the attempt that wins."""
    return f"jobs/{job_uid}/manifest.json"


def model_archive(name: str, digest: str) -> str:
    """The zip of a model; named by its digest (`sha256:…`), so that a newer one never replaces what a job waits for."""
    return f"models/{name}/{digest.removeprefix('sha256:')}.zip"


def model_prefix(name: str) -> str:
    """All that belongs to a model."""
    return f"models/{name}/"


def model_card(name: str) -> str:
    """What the catalogue says of a model."""
    return f"models/{name}/model.json"


def models_prefix() -> str:
    """All models of the catalogue."""
    return "models/"
