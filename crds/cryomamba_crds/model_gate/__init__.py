"""The gate that every nnU-Net model passes: checked without torch, without running or unpacking anything of it.

Neither the pickles in a model's checkpoints nor the class names in its plans.json are trusted: what they may name is
in fixed lists, and the rest is refused by name. The API server asks when a model is pushed, a runner before torch sees
the file.
"""

from cryomamba_crds.model_gate.archive import digest_of, extract_model, pack_model
from cryomamba_crds.model_gate.errors import ModelError
from cryomamba_crds.model_gate.facts import (
    ModelFacts,
    check_channels,
    check_runnable,
    count_tiles,
    image_spacing,
    network_shape,
    resolve_folds,
)
from cryomamba_crds.model_gate.inspection import InspectedModel, inspect_model, open_model

__all__ = [
    "InspectedModel",
    "ModelError",
    "ModelFacts",
    "check_channels",
    "check_runnable",
    "count_tiles",
    "digest_of",
    "extract_model",
    "image_spacing",
    "inspect_model",
    "network_shape",
    "open_model",
    "pack_model",
    "resolve_folds",
]
