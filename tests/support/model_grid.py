"""Kinds of models and volumes: what the engine's correctness and the plan of its memory are tried on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds.task import VoxelSize


def labels(count: int, **more: int) -> dict[str, Any]:
    names = {"background": 0, **{f"label{number}": number for number in range(1, count)}, **more}
    return {"channel_names": {"0": "density"}, "labels": names, "file_ending": ".nii.gz"}


def of_channels(*names: str, dataset: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**(dataset or labels(3)), "channel_names": {str(number): name for number, name in enumerate(names)}}


REGIONS = {
    "channel_names": {"0": "density"},
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "dot": 3},
    "regions_class_order": [1, 2, 3],
}


@dataclass(frozen=True)
class Case:
    """A volume, and a model as the fixture `write_model` makes it."""

    shape: tuple[int, int, int]
    model: dict[str, Any] = field(default_factory=dict)
    step_size: float = 0.5
    mirroring: bool = True
    voxel_size: VoxelSize | None = None
    """In the plans' unit; None: as the plans have it."""
    border: int = 0
    """Voxels of zeros around the volume."""
    first_border: int = 0
    """Voxels of zeros around the first channel, within the volume that the others fill."""
    picture: bool = False
    """Whole numbers from 0 to 255."""
    batch: int = 1

    @property
    def channels(self) -> int:
        return len(self.model.get("dataset", {"channel_names": "0"})["channel_names"])


def resampled_by(function: str, **arguments: Any) -> Callable[[dict[str, Any]], None]:
    def change(configuration: dict[str, Any]) -> None:
        for what in ("data", "seg", "probabilities"):
            configuration[f"resampling_fn_{what}"] = function
            configuration[f"resampling_fn_{what}_kwargs"] = {"is_seg": what == "seg", **arguments}

    return change


def normalised_by(*schemes: str, **more: Any) -> Callable[[dict[str, Any]], None]:
    return lambda configuration: configuration.update(normalization_schemes=list(schemes), **more)


ANISOTROPIC = {"spacing": (4.0, 1.0, 1.0)}

CASES = {
    "a patch of 16, prime sizes": Case((29, 31, 23)),
    "two classes, no mirroring, steps of a fifth": Case(
        (17, 24, 26), {"heads": 2, "dataset": labels(2)}, step_size=0.2, mirroring=False
    ),
    "forty classes": Case((20, 19, 22), {"heads": 40, "dataset": labels(40)}, step_size=0.75),
    "smaller than the patch along two axes": Case((11, 40, 7)),
    "smaller than the patch along all axes": Case((9, 13, 5), {"patch": (16, 24, 16)}),
    "one voxel thick": Case((1, 33, 30)),
    "three folds": Case((24, 20, 18), {"folds": ("0", "1", "4")}, step_size=0.6),
    "mirrored along two axes, two passes at once": Case((26, 22, 19), {"mirroring": (0, 2)}, batch=2),
    "not mirrored, four tiles at once": Case((18, 22, 45), mirroring=False, batch=4),
    "transposed": Case((23, 20, 26), {"transpose": (2, 0, 1), "patch": (8, 16, 24)}),
    "transposed the other way, residual encoder": Case(
        (25, 18, 20), {"transpose": (1, 2, 0), "network": "ResidualEncoderUNet"}, step_size=1.0
    ),
    "regions": Case((22, 27, 20), {"dataset": REGIONS, "heads": 3}),
    "an ignore label": Case((18, 20, 24), {"dataset": labels(3, ignore=3)}),
    "slices": Case((9, 29, 35), {"patch": (16, 24)}),
    "slices across y": Case((21, 11, 26), {"patch": (16, 24), "transpose": (1, 0, 2)}, batch=4),
    "slices, resampled": Case((7, 23, 31), {"patch": (16, 16)}, voxel_size=(1.2, 1.3, 2.0)),
    "a border of zeros": Case((19, 25, 22), border=3),
    "a border of zeros, resampled": Case((19, 25, 22), voxel_size=(1.9, 1.2, 1.6), border=2),
    "resampled up": Case((14, 17, 15), voxel_size=(2.3, 1.6, 3.1)),
    "resampled down": Case((47, 40, 51), voxel_size=(0.8, 0.7, 1.1)),
    "resampled from slices far apart": Case((9, 28, 30), voxel_size=(1.3, 0.8, 4.1)),
    "resampled to slices far apart": Case((40, 21, 25), ANISOTROPIC, voxel_size=(1.2, 1.3, 1.1)),
    "resampled to slices far apart, transposed": Case(
        (21, 40, 25), {**ANISOTROPIC, "transpose": (1, 0, 2)}, voxel_size=(1.2, 1.3, 1.1)
    ),
    "resampled by torch": Case(
        (18, 23, 20), {"plans_changes": resampled_by("resample_torch_fornnunet")}, voxel_size=(1.9, 1.2, 1.6)
    ),
    "resampled by torch from slices far apart": Case(
        (9, 28, 30), {"plans_changes": resampled_by("resample_torch_fornnunet")}, voxel_size=(1.3, 0.8, 4.1)
    ),
    "CT": Case((20, 18, 22), {"plans_changes": normalised_by("CTNormalization")}),
    "rescaled": Case((20, 18, 22), {"plans_changes": normalised_by("RescaleTo01Normalization")}, border=1),
    "not normalised": Case((20, 18, 22), {"plans_changes": normalised_by("NoNormalization")}),
    "a picture": Case((20, 18, 22), {"plans_changes": normalised_by("RGBTo01Normalization")}, picture=True),
    "low resolution": Case(
        (24, 33, 29), {"configuration": "3d_lowres", "spacing": (3.0, 1.9, 2.4), "patch": (12, 16, 16)}
    ),
    "regions, an ignore label": Case(
        (18, 21, 20), {"dataset": {**REGIONS, "labels": {**REGIONS["labels"], "ignore": 4}}, "heads": 3}
    ),
    "two channels": Case((21, 26, 19), {"dataset": of_channels("density", "map")}),
    "three channels, each normalised in its way": Case(
        (18, 22, 25),
        {
            "dataset": of_channels("CT", "bytes", "as it is"),
            # A mask says nothing to these three.
            "plans_changes": normalised_by(
                "CTNormalization", "RGBTo01Normalization", "NoNormalization", use_mask_for_norm=[True, True, True]
            ),
        },
        picture=True,
        batch=2,
    ),
    "two channels, resampled, a border of zeros that is wider in one": Case(
        (19, 25, 22),
        {
            "dataset": of_channels("density", "map"),
            "plans_changes": normalised_by("ZScoreNormalization", "RescaleTo01Normalization"),
        },
        voxel_size=(1.9, 1.2, 1.6),
        border=2,
        first_border=3,
    ),
    "two channels, resampled from slices far apart": Case(
        (9, 28, 30), {"dataset": of_channels("density", "map")}, voxel_size=(1.3, 0.8, 4.1)
    ),
    "two channels, transposed, regions": Case(
        (15, 20, 18),
        {
            "dataset": of_channels("density", "map", dataset=REGIONS),
            "transpose": (2, 0, 1),
            "patch": (8, 16, 24),
        },
        step_size=0.75,
        voxel_size=(1.4, 1.1, 2.2),
    ),
    "three channels, slices across y": Case(
        (21, 11, 26),
        {"dataset": of_channels("a", "b", "c"), "patch": (16, 24), "transpose": (1, 0, 2), "folds": ("0", "1")},
        first_border=1,
    ),
}


def blobs(case: Case) -> NDArray[np.float32]:
    """Return a volume [c, z, y, x] in which labels form patches."""
    rng = np.random.default_rng(7)
    channels = []
    for number in range(case.channels):
        coarse = rng.normal(size=[edge // 4 + 1 for edge in case.shape])
        fine = coarse.repeat(4, axis=0).repeat(4, axis=1).repeat(4, axis=2)
        image = fine[tuple(slice(edge) for edge in case.shape)] + 0.3 * rng.normal(size=case.shape) + 0.5
        if case.picture:
            image = np.rint((60 * image + 100).clip(0, 255))
        if number == 0 and case.first_border:
            within = (slice(case.first_border, -case.first_border),) * image.ndim
            image = np.pad(image[within], case.first_border)
        channels.append(np.pad((1 + number) * image if not case.picture else image, case.border))
    return np.stack(channels).astype(np.float32)
