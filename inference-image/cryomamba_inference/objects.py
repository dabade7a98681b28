"""`objects.csv`: a row for each connected component of each label, written while the volume is gone through."""

import csv
from collections import Counter
from collections.abc import Mapping
from typing import TextIO

import numpy as np

from cryomamba_inference.components import ComponentTable

OBJECTS_NAME = "objects.csv"

COLUMNS = (
    "label",
    "name",
    "component",
    "volume_voxels",
    "volume_nm3",
    *(f"centroid_{axis}_voxels" for axis in "xyz"),
    *(f"centroid_{axis}_nm" for axis in "xyz"),
    *(f"first_{axis}_voxel" for axis in "xyz"),
    *(f"last_{axis}_voxel" for axis in "xyz"),
    "touches_border",
)
"""What a row holds; docs/statistics.md says what each means."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are the first four in full width, which spreadsheets in some languages take for the same."""
_ROWS = 1 << 14
"""Written in one go: as Python's numbers they take some 30 times the memory."""


class ObjectWriter:
    """Writes the table as RFC 4180 has it: UTF-8, commas, a header, lines that end with CR LF.

    Args:
        file: Opened for text with `newline=""`.
        names: Of labels, by their number.
        shape_zyx: Of the volume.
        voxel_size_nm: Edge lengths along X, Y, Z; None where they are unknown: columns in nm are then empty.
    """

    def __init__(
        self,
        file: TextIO,
        names: Mapping[int, str],
        shape_zyx: tuple[int, int, int],
        voxel_size_nm: tuple[float, float, float] | None,
    ) -> None:
        self._writer = csv.writer(file)
        self._names = {number: as_text(name) for number, name in names.items()}
        self._highest = np.array(shape_zyx[::-1]) - 1
        self._voxel_size_nm = None if voxel_size_nm is None else np.array(voxel_size_nm)
        self._numbers: Counter[int] = Counter()
        self._writer.writerow(COLUMNS)

    def write(self, table: ComponentTable) -> None:
        """Append components; each label's are numbered from 1 in the order in which they come."""
        for start in range(0, len(table), _ROWS):
            self._write(table.pick(np.arange(start, min(start + _ROWS, len(table)))))

    def _write(self, table: ComponentTable) -> None:
        rows = len(table)
        labels = table.label.tolist()
        volumes, places = [""] * rows, [("", "", "")] * rows
        if self._voxel_size_nm is not None:
            volumes = (table.voxels * self._voxel_size_nm.prod()).tolist()
            places = (table.centroids * self._voxel_size_nm).tolist()
        at_border = ((table.first == 0) | (table.last == self._highest)).any(axis=1)
        columns = (
            labels,
            table.voxels.tolist(),
            volumes,
            table.centroids.tolist(),
            places,
            table.first.tolist(),
            table.last.tolist(),
            np.where(at_border, "true", "false").tolist(),
        )
        for label, voxels, volume, centroid, place, first, last, border in zip(*columns, strict=True):
            self._numbers[label] += 1
            name, number = self._names[label], self._numbers[label]
            self._writer.writerow((label, name, number, voxels, volume, *centroid, *place, *first, *last, border))


def as_text(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula: with an apostrophe before a character that begins one.

    Source: OWASP, "CSV Injection".
    """
    return f"'{name}" if name.startswith(_FORMULA_STARTS) else name
