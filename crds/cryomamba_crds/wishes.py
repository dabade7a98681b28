"""The same wishes in two forms: the resource's (whole numbers and strings) and the runner's task's. Pure."""

import math

from cryomamba_crds.resource import Inference, Preview
from cryomamba_crds.task import Folds, InferenceParams, PreviewParams, VoxelSize

_NM_DECIMALS = 9


def inference_params(wish: Inference) -> InferenceParams:
    """Return the parameters of a resource as a task has them."""
    folds: Folds = "all"
    if wish.folds is not None:
        folds = ["all" if fold == "all" else int(fold) for fold in wish.folds]
    voxel_size: VoxelSize | None = None
    if wish.voxel_size_nm is not None:
        x, y, z = (float(edge) for edge in wish.voxel_size_nm)
        voxel_size = x, y, z
    return InferenceParams(
        folds=folds,
        step_size=wish.tile_step_percent / 100,
        mirroring=wish.mirroring,
        save_probabilities=wish.save_probabilities,
        object_table=wish.object_table,
        spacing_policy=wish.spacing_policy,
        voxel_size_nm=voxel_size,
        invert=wish.invert,
    )


def inference_wish(params: InferenceParams) -> Inference:
    """Return the parameters of a task as a resource has them; `inference_params` gives the same ones back.

    Raises:
        ValueError: the step is no whole percentage, or a voxel's edge has more than nine decimals.
    """
    percent = round(params.step_size * 100)
    if not math.isclose(percent / 100, params.step_size, rel_tol=1e-12):
        raise ValueError(f"a step of {params.step_size} is not a whole percentage")
    return Inference(
        folds=None if params.folds == "all" else [str(fold) for fold in params.folds],
        tile_step_percent=percent,
        mirroring=params.mirroring,
        save_probabilities=params.save_probabilities,
        object_table=params.object_table,
        spacing_policy=params.spacing_policy,
        voxel_size_nm=None if params.voxel_size_nm is None else [_decimal(edge) for edge in params.voxel_size_nm],
        invert=params.invert,
    )


def preview_params(wish: Preview) -> PreviewParams:
    """Return the preview of a resource as a task has it."""
    return PreviewParams(
        enabled=wish.enabled,
        interval_seconds=wish.interval_seconds,
        downsample_factor=wish.downsample_factor,
    )


def preview_wish(params: PreviewParams) -> Preview:
    """Return the preview of a task as a resource has it, its interval in whole seconds, rounded up."""
    return Preview(
        enabled=params.enabled,
        interval_seconds=math.ceil(params.interval_seconds),
        downsample_factor=params.downsample_factor,
    )


def _decimal(edge: float) -> str:
    text = f"{edge:.{_NM_DECIMALS}f}".rstrip("0").rstrip(".")
    if float(text) != edge:
        raise ValueError(f"{edge} nm has more than {_NM_DECIMALS} decimals")
    return text
