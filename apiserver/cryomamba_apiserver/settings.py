"""Settings of the server, from the environment (`CRYOMAMBA_…`) and the command line."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_data_dir() -> Path:
    """Return where a workstation's data is kept, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "cryomamba"


class Settings(BaseSettings):
    """Every setting has a default that suits one workstation."""

    model_config = SettingsConfigDict(env_prefix="CRYOMAMBA_", frozen=True, extra="ignore")

    data_dir: Annotated[Path, Field(default_factory=default_data_dir)]
    max_upload_size: Annotated[int, Field(ge=1)] = 10 * 1024**3
    """Bytes of one volume as it is uploaded."""
    upload_ttl_seconds: Annotated[int, Field(ge=60)] = 7200
    """How long an upload may take."""
    download_ttl_seconds: Annotated[int, Field(ge=60)] = 3600
    """How long a signed URL works."""
    max_queued_jobs: Annotated[int, Field(ge=1)] = 1000
    token_issuer: str = "cryomamba"  # noqa: S105 - a name, no secret
    token_audience: str = "cryomamba"  # noqa: S105 - a name, no secret
