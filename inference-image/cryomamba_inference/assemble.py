"""Turns a segmentation into the files that a user downloads: labels, statistics, probabilities."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cryomamba_crds.model_card import ModelCard
from cryomamba_crds.report import LabelLegend, StatisticsDocument
from cryomamba_crds.task import VoxelSize
from cryomamba_inference.statistics import LabelStatistics
from cryomamba_inference.volume import Volume, open_labels, result_content_type, result_name

STATISTICS_NAME = "statistics.json"
PROBABILITIES_NAME = "probabilities.npz"
_SLAB_PLANES = 16


@dataclass(frozen=True)
class ResultFile:
    """A file that becomes an artifact."""

    path: Path
    content_type: str


def write_labels(
    labels: NDArray[np.integer], volume: Volume, card: ModelCard, voxel_size_nm: VoxelSize | None, folder: Path
) -> tuple[ResultFile, StatisticsDocument]:
    """Write the label file and measure the labels in the same pass over slabs along Z.

    Args:
        labels: [z, y, x], of the volume's shape.
        volume: The input, whose header the label file gets.
        card: Names and colours of the labels.
        voxel_size_nm: What the user says it is, along X, Y, Z; None: what the header says.
        folder: Where the file goes.
    """
    ids = [label.id for label in card.labels]
    size = voxel_size_nm or volume.header.voxel_size_nm
    measured = LabelStatistics(volume.shape, ids, size)
    path = folder / result_name(volume.header)
    with open_labels(path, volume, max(ids)) as writer:
        for start in range(0, len(labels), _SLAB_PLANES):
            slab = labels[start : start + _SLAB_PLANES]
            writer.write(start, slab)
            measured.add(slab)
    statistics = measured.result()
    document = StatisticsDocument(
        **statistics.model_dump(),
        labels={str(label.id): LabelLegend(name=label.name, colour=label.colour) for label in card.labels},
        voxel_size_nm=size,
        voxel_size_source="override" if voxel_size_nm else "header" if size else "unknown",
        warnings=list(volume.header.warnings),
    )
    return ResultFile(path, result_content_type(volume.header)), document


def write_statistics(document: StatisticsDocument, folder: Path) -> ResultFile:
    """Write `statistics.json`."""
    path = folder / STATISTICS_NAME
    path.write_text(document.model_dump_json(indent=2) + "\n")
    return ResultFile(path, "application/json")


def write_probabilities(probabilities: NDArray[np.float16], numbers: Sequence[int], folder: Path) -> ResultFile:
    """Write `probabilities.npz`: one float16 array [z, y, x] a class, named by the class's number.

    Class by class into the zip, since `numpy.savez` would be handed all of them at once.

    Args:
        probabilities: [class, z, y, x].
        numbers: Of the classes, in their order: 0 and the labels, or the labels alone where the model decides
            overlapping regions, which have no background.
        folder: Where the file goes.
    """
    path = folder / PROBABILITIES_NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number, one in zip(numbers, probabilities, strict=True):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(one), allow_pickle=False)
    return ResultFile(path, "application/zip")
