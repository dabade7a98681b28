"""Weighted sums of overlapping tiles, kept for a row of tiles along Z and no longer."""

import torch

from cryomamba_inference.engine.tiling import Tiling, largest_overlap


class SlidingSums:
    """Adds tiles up: along X in a line, lines along Y in a row, rows along Z, and gives away what is complete.

    A row is worked on in a band that is one tile high along Y. What a row has for planes that the next one adds to is
    held until then. A voxel's sum is taken in one order, whatever row was the first: its row's tiles by line and
    place, then what earlier rows held. So rows that are done again give the same sums to the last bit.

    All axes are the file's, [z, y, x], in the padded volume.

    Args:
        tiling: The tiles.
        weights: Of a tile's voxels, the patch's shape, on the device where sums are kept.
        heads: Of the network.
        divided: Whether the sum of the weights is needed, to divide by it. Which label is best can be told without.
    """

    def __init__(self, tiling: Tiling, weights: torch.Tensor, heads: int, *, divided: bool) -> None:
        self._tiling = tiling
        self._weights = weights
        self._heads = heads
        self._divided = divided
        depth, height, _ = tiling.patch
        _, rows, columns = tiling.padded
        channels = heads + divided
        self._band = weights.new_zeros((channels, depth, height, columns))
        self._held = weights.new_zeros((channels, largest_overlap(tiling), rows, columns))
        self._held_planes = 0
        self._row = -1

    @property
    def device(self) -> torch.device:
        """Where sums are kept."""
        return self._weights.device

    def begin_row(self, row: int) -> None:
        """Begin a row of tiles: the one after the last, or any one, whose planes then lack what earlier ones add."""
        follows = row == self._row + 1 and row > 0
        self._held_planes = self._overlap(row - 1) if follows else 0
        self._row = row

    @torch.inference_mode()
    def begin_line(self, line: int) -> None:
        """Begin a line of tiles along X; lines follow each other from 0 on."""
        starts, height = self._tiling.starts[1], self._tiling.patch[1]
        if line == 0:
            self._band.zero_()
            return
        step = starts[line] - starts[line - 1]
        kept = height - step
        # In strips that are no longer than the step, so that none is overwritten before it has moved.
        for start in range(0, kept, step):
            stop = min(start + step, kept)
            self._band[:, :, start:stop] = self._band[:, :, start + step : stop + step]
        self._band[:, :, kept:] = 0

    @torch.inference_mode()
    def add(self, x: int, logits: torch.Tensor) -> None:
        """Add a tile of the line.

        Args:
            x: Its first column.
            logits: [heads, z, y, x].
        """
        place = slice(x, x + self._tiling.patch[2])
        self._band[: self._heads, ..., place].addcmul_(logits.to(self._weights.device), self._weights)
        if self._divided:
            self._band[self._heads, ..., place].add_(self._weights)

    @torch.inference_mode()
    def end_line(self, line: int) -> tuple[range, torch.Tensor]:
        """Return the rows that are now complete in the planes that no other row of tiles adds to.

        Returns:
            The rows, and their weighted sums [heads, planes, rows, columns], divided by the sum of the weights if that
            was asked for. A view, good until the next line begins.
        """
        starts = self._tiling.starts[1]
        first = starts[line]
        stop = starts[line + 1] if line + 1 < len(starts) else first + self._tiling.patch[1]
        overlap = self._overlap(self._row)
        complete = self._tiling.patch[0] - overlap
        band = self._band[:, :, : stop - first]
        if self._held_planes:
            band[:, : self._held_planes] += self._held[:, : self._held_planes, first:stop]
        if overlap:
            self._held[:, :overlap, first:stop] = band[:, complete:]
        sums = band[: self._heads, :complete]
        if self._divided:
            sums /= band[self._heads, :complete]
        return range(first, stop), sums

    def _overlap(self, row: int) -> int:
        starts = self._tiling.starts[0]
        return starts[row] + self._tiling.patch[0] - self._tiling.final_after(row)
