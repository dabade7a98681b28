"""The catalogue's entry for a model (`model.json`), beside the zip of its nnU-Net result folder."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SpacingPolicy = Literal["ignore", "angstrom", "nm"]
"""How a volume's voxel size meets the unitless spacing of nnU-Net's plans."""

MODEL_NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"


class Label(BaseModel):
    """One class that the model tells apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[int, Field(ge=1, le=32767)]
    name: Annotated[str, Field(min_length=1, max_length=63)]
    colour: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


class ModelCard(BaseModel):
    """What a server needs to know of a model without opening it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: Annotated[list[Label], Field(min_length=1)]
    spacing_policy: SpacingPolicy
    contrast: Literal["dark", "bright"]
    """How the objects of interest look against the background in the volumes that the model was trained on."""
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    """Of the zip."""
    cpu_fallback: bool = False
    """Whether a job goes on on the CPU where the GPU's memory does not hold the model; many times as slow."""
    seconds_per_tile: float | None = None
    """Measured; None until a job has run."""
