"""What the gate learns of a model, and the arithmetic that follows from it: folds, spacing, shape and tiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_card import SpacingPolicy
from cryomamba_crds.model_gate.errors import ModelError
from cryomamba_crds.task import Folds, VoxelSize

_DIMENSIONS = 3


@dataclass(frozen=True)
class ModelFacts:
    """A model that passed the gate.

    Lengths and axes named "of the plan" are in the order in which the network sees the volume:
    ``plan axis i = file axis transpose_forward[i]``, file axes being [z, y, x].
    """

    configuration: str
    """Such as ``3d_fullres``."""
    trainer_name: str
    folds: tuple[str, ...]
    """The numbered folds, ``"0"`` and up, in numerical order."""
    has_fold_all: bool
    label_names: dict[int, str]
    """By the number in the result; without the background."""
    regions: bool
    """Whether the network decides overlapping regions (sigmoid) and not exclusive labels (softmax)."""
    channel_names: tuple[str, ...]
    patch_size: tuple[int, ...]
    """Of the plan; two entries for a 2d configuration, which takes plan axis 0 slice by slice."""
    spacing: tuple[float, ...]
    """Of the plan; unitless, as many entries as `patch_size`."""
    original_median_spacing: tuple[float, float, float]
    """Of the plan: what the training volumes typically had."""
    transpose_forward: tuple[int, int, int]
    mirroring_axes: tuple[int, ...] | None
    """Axes of the patch that test-time augmentation flips; None where training did not mirror."""
    previous_stage: str | None
    """The configuration whose result this one needs as input (cascades); None for the usual ones."""

    @property
    def heads(self) -> int:
        """Number of output channels of the network."""
        return len(self.label_names) if self.regions else len(self.label_names) + 1


def check_runnable(facts: ModelFacts) -> None:
    """Refuse what a single file cannot be segmented with.

    Raises:
        ModelError: The model is a later stage of a cascade.
    """
    if facts.previous_stage is not None:
        raise ModelError(
            f"plans.json: configurations.{facts.configuration}.previous_stage",
            f"needs the result of {facts.previous_stage!r}, which is a model of its own",
            hint="Use the 3d_fullres or 3d_lowres configuration of the same training; cascades are not run here.",
        )


def check_channels(facts: ModelFacts, channels: int) -> None:
    """Refuse a volume that has more or fewer channels than the model takes.

    Args:
        facts: The model's.
        channels: The volume's.

    Raises:
        FailureError: VALIDATION_ERROR, with both numbers and the names of the model's channels.
    """
    wanted = len(facts.channel_names)
    if channels == wanted:
        return
    names = ", ".join(facts.channel_names)
    takes = f"{wanted} channels ({names})" if wanted > 1 else f"one channel ({names})"
    raise FailureError(
        FailureCode.VALIDATION_ERROR,
        f"volume: it has {'one channel' if channels == 1 else f'{channels} channels'} and the model takes {takes}",
        hint="Write that one volume to a file of its own, or choose a model that was trained on all of them."
        if wanted == 1
        else f"Put {wanted} volumes of one grid into one 4D NIfTI file, in this order: {names}.",
        details={"field": "channels", "channels": channels, "model_channels": list(facts.channel_names)},
    )


def resolve_folds(facts: ModelFacts, requested: Folds) -> tuple[str, ...]:
    """Return the folds to average, as in ``fold_<name>``.

    ``"all"`` is every numbered fold, or fold_all where there is none; the two are never mixed.

    Raises:
        FailureError: VALIDATION_ERROR; a fold is not there (the hint lists what is), none is named, or fold_all is
            named beside others.
    """
    there = (*facts.folds, *(("all",) if facts.has_fold_all else ()))
    hint = f"The model has folds {', '.join(there)}." if facts.folds else 'The model has fold_all only: use ["all"].'
    if requested == "all":
        return facts.folds or ("all",)
    names = tuple(dict.fromkeys(str(fold) for fold in requested))
    details = {"field": "params.folds", "available": list(there)}
    if not names:
        raise FailureError(FailureCode.VALIDATION_ERROR, "folds: the list is empty", hint=hint, details=details)
    if "all" in names and len(names) > 1:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            "folds: fold_all has seen all training data and is never mixed with numbered folds",
            hint=hint,
            details=details,
        )
    missing = [name for name in names if name not in there]
    if missing:
        message = f"folds: the model has no fold {', '.join(missing)}"
        raise FailureError(FailureCode.VALIDATION_ERROR, message, hint=hint, details=details)
    return names


def image_spacing(
    facts: ModelFacts, policy: SpacingPolicy, voxel_size_nm: VoxelSize | None
) -> tuple[float, float, float]:
    """Return the spacing under which nnU-Net is handed a volume, [z, y, x], unitless as the plans are.

    Args:
        facts: The model's.
        policy: ``ignore``: the volume has the voxels that the model was trained on; ``angstrom`` or ``nm``: the
            plans' numbers are in that unit.
        voxel_size_nm: Along X, Y, Z in nm, or None where unknown.

    Raises:
        FailureError: VALIDATION_ERROR; the policy needs a voxel size and there is none.
    """
    if policy == "ignore":
        median = facts.original_median_spacing
        z, y, x = (median[facts.transpose_forward.index(axis)] for axis in range(_DIMENSIONS))
        return z, y, x
    if voxel_size_nm is None:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"voxel size: unknown, and the spacing policy {policy!r} needs it",
            hint="Give the voxel size in nm, or use the spacing policy 'ignore' if the volume has the voxel size that "
            "the model was trained on.",
            details={"field": "params.voxel_size_nm"},
        )
    factor = 10.0 if policy == "angstrom" else 1.0
    x, y, z = (factor * edge for edge in voxel_size_nm)
    return z, y, x


def network_shape(facts: ModelFacts, shape_zyx: Sequence[int], spacing_zyx: Sequence[float]) -> tuple[int, int, int]:
    """Return the shape to which a volume is resampled, in the plan's axes.

    nnU-Net first crops to the non-zero box, which only the voxels tell; this is the upper bound without a crop.
    Source: ``nnunetv2.preprocessing.resampling.default_resampling.compute_new_shape``.

    Args:
        facts: The model's.
        shape_zyx: Of the volume.
        spacing_zyx: From `image_spacing`.
    """
    shape = [shape_zyx[axis] for axis in facts.transpose_forward]
    spacing = [spacing_zyx[axis] for axis in facts.transpose_forward]
    target = facts.spacing if len(facts.spacing) == _DIMENSIONS else (spacing[0], *facts.spacing)
    first, second, third = (round(old / new * size) for old, new, size in zip(spacing, target, shape, strict=True))
    return first, second, third


def count_tiles(shape: Sequence[int], patch_size: Sequence[int], step: float) -> int:
    """Return how many tiles nnU-Net's sliding window takes, for one fold.

    Source: ``nnunetv2.inference.sliding_window_prediction.compute_steps_for_sliding_window``.

    Args:
        shape: Of the resampled volume, three axes in the plan's order; shorter than a patch means padded to it.
        patch_size: Two or three axes; with two, plan axis 0 is taken slice by slice.
        step: Distance of neighbouring tiles as a fraction of the patch, above 0 and at most 1.
    """
    slices = math.prod(shape[: len(shape) - len(patch_size)])
    tiled = zip(shape[len(shape) - len(patch_size) :], patch_size, strict=True)
    return slices * math.prod(math.ceil((max(size, patch) - patch) / (patch * step)) + 1 for size, patch in tiled)
