"""Turns slabs of labels into the files that a user downloads: labels, statistics, objects, probabilities."""

import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cryomamba_crds.model_card import ModelCard
from cryomamba_crds.report import LabelLegend, StatisticsDocument
from cryomamba_crds.task import VoxelSize
from cryomamba_inference.objects import OBJECTS_NAME, ObjectWriter
from cryomamba_inference.statistics import LabelStatistics
from cryomamba_inference.volume import LabelWriter, Volume, open_labels, result_content_type, result_name

STATISTICS_NAME = "statistics.json"
PROBABILITIES_NAME = "probabilities.npz"


@dataclass(frozen=True)
class ResultFile:
    """A file that becomes an artifact."""

    path: Path
    content_type: str


@dataclass(frozen=True)
class Wanted:
    """What is made of the slabs, and where."""

    volume: Volume
    """The input, whose header the label file gets."""
    card: ModelCard
    """Names and colours of the labels."""
    voxel_size_nm: VoxelSize | None
    """What the user says it is, along X, Y, Z; None: what the header says."""
    plane: int
    """Z index of the plane whose labels are kept for the picture."""
    classes: Sequence[int] | None
    """Numbers of the classes whose probabilities are wanted, in their order; None: they are not."""
    folder: Path
    objects: bool = False
    """Whether `objects.csv` is wanted."""

    @property
    def size_nm(self) -> VoxelSize | None:
        """Edge lengths of a voxel along X, Y, Z; None where neither the user nor the header knows them."""
        return self.voxel_size_nm or self.volume.header.voxel_size_nm


class Results:
    """Takes slabs in the order of Z, writes them and measures them in the same pass; made by `open_results`.

    Memory is needed for no more than a slab.
    """

    def __init__(self, wanted: Wanted, writer: LabelWriter, arrays: Sequence[BinaryIO], table: TextIO | None) -> None:
        self._wanted = wanted
        self._writer = writer
        self._arrays = arrays
        names = {label.id: label.name for label in wanted.card.labels}
        shape, size = wanted.volume.shape, wanted.size_nm
        objects = ObjectWriter(table, names, shape, size) if table else None
        self._measured = LabelStatistics(shape, list(names), size, objects.write if objects else None)
        self._plane: NDArray[np.integer] | None = None

    def add(self, start: int, labels: NDArray[np.integer], probabilities: NDArray[np.float16] | None) -> None:
        """Take the next planes.

        Args:
            start: Z index of the first one.
            labels: [z, y, x].
            probabilities: [class, z, y, x], where they are wanted.
        """
        self._writer.write(start, labels)
        self._measured.add(labels)
        if start <= self._wanted.plane < start + len(labels):
            self._plane = labels[self._wanted.plane - start].copy()
        if probabilities is not None:
            for array, one in zip(self._arrays, probabilities, strict=True):
                array.write(np.ascontiguousarray(one).data)

    def plane_or(self, partial: Callable[[], NDArray[np.integer]]) -> NDArray[np.integer]:
        """Return labels [y, x] of the plane for the picture: the final ones, else what there is of them."""
        return partial() if self._plane is None else self._plane

    @property
    def plane(self) -> NDArray[np.integer]:
        """Labels [y, x] of the plane for the picture."""
        if self._plane is None:
            raise ValueError(f"plane {self._wanted.plane} has not come")
        return self._plane

    def statistics(self) -> StatisticsDocument:
        """Return what was measured, once all planes are in."""
        wanted = self._wanted
        return StatisticsDocument(
            **self._measured.result().model_dump(),
            labels={str(label.id): LabelLegend(name=label.name, colour=label.colour) for label in wanted.card.labels},
            voxel_size_nm=wanted.size_nm,
            voxel_size_source="override" if wanted.voxel_size_nm else "header" if wanted.size_nm else "unknown",
            warnings=list(wanted.volume.header.warnings),
        )

    def files(self) -> list[ResultFile]:
        """Return labels, objects and probabilities as files, once `open_results` has been left."""
        header = self._wanted.volume.header
        files = [ResultFile(self._wanted.folder / result_name(header), result_content_type(header))]
        if self._wanted.objects:
            files.append(ResultFile(self._wanted.folder / OBJECTS_NAME, "text/csv"))
        if self._wanted.classes is not None:
            files.append(_pack_probabilities(self._wanted.classes, self._wanted.volume.shape, self._wanted.folder))
        return files


@contextmanager
def open_results(wanted: Wanted) -> Iterator[Results]:
    """Open the label file and beside it, where they are wanted, the table of objects and an array a class."""
    path = wanted.folder / result_name(wanted.volume.header)
    highest = max(label.id for label in wanted.card.labels)
    with open_labels(path, wanted.volume, highest) as writer, ExitStack() as stack:
        arrays = [stack.enter_context(_array(wanted.folder, number).open("wb")) for number in wanted.classes or ()]
        table = None
        if wanted.objects:
            table = stack.enter_context((wanted.folder / OBJECTS_NAME).open("w", encoding="utf-8", newline=""))
        yield Results(wanted, writer, arrays, table)


def write_statistics(document: StatisticsDocument, folder: Path) -> ResultFile:
    """Write `statistics.json`."""
    path = folder / STATISTICS_NAME
    path.write_text(document.model_dump_json(indent=2) + "\n")
    return ResultFile(path, "application/json")


def _array(folder: Path, number: int) -> Path:
    return folder / f"probabilities-{number}"


def _pack_probabilities(classes: Sequence[int], shape: tuple[int, int, int], folder: Path) -> ResultFile:
    """Write `probabilities.npz`: one float16 array [z, y, x] a class, named by the class's number."""
    path = folder / PROBABILITIES_NAME
    head = {"descr": npy.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in classes:
            with archive.open(f"{number}.npy", "w", force_zip64=True) as member:
                npy.write_array_header_1_0(member, head)
                with _array(folder, number).open("rb") as array:
                    shutil.copyfileobj(array, member, 1 << 20)
            _array(folder, number).unlink()
    return ResultFile(path, "application/zip")
