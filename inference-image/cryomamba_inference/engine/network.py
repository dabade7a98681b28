"""Runs tiles through the network as nnU-Net does: flips averaged, folds one after another."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from cryomamba_inference.engine.tiling import mirrorings
from cryomamba_inference.model import Model


class TileNetwork:
    """A model's network over batches of tiles.

    What a tile gets does not depend, to the last bit, on its place in a batch or on the other tiles in it, but it does
    on the size of the batch. So all batches of a job are of one size; the last one of a line is filled up.

    Args:
        model: Ready to run.
        mirroring: Whether to average over flips along the axes that training mirrored.
        batch: Tiles and flips of them that go through the network at once.
        dtype: Of what goes in and comes out; float64 is for tests.
    """

    def __init__(self, model: Model, *, mirroring: bool, batch: int, dtype: torch.dtype) -> None:
        self._network = model.network
        self.device = model.device
        self._weights = [
            {name: _as(value, model.device, dtype) for name, value in fold.items()} for fold in model.parameters
        ]
        self._flips = mirrorings(model.facts.mirroring_axes if mirroring else None)
        self._dtype = dtype
        self.batch = batch

    @property
    def folds(self) -> int:
        """Number of sets of weights."""
        return len(self._weights)

    @property
    def tiles_at_once(self) -> int:
        """How many tiles are worth handing over together."""
        return max(1, self.batch // len(self._flips))

    @contextmanager
    def restored_at_the_end(self) -> Iterator[None]:
        """Give the model its own weights back, whatever fold ran last."""
        own = dict(self._network.state_dict())
        try:
            yield
        finally:
            self._network.load_state_dict(own, assign=True)

    def use_fold(self, fold: int) -> None:
        """Take a fold's weights; they are not copied."""
        self._network.load_state_dict(self._weights[fold], assign=True)

    @torch.inference_mode()
    def predict(self, tiles: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return what the network says of some tiles, averaged over flips.

        Args:
            tiles: Up to `tiles_at_once`, [c, ...] in the axes of the plan's patch, on the device.

        Returns:
            Logits [heads, ...] of each tile.
        """
        passes = [(tile, flip) for tile in range(len(tiles)) for flip in self._flips]
        sums: list[torch.Tensor | None] = [None] * len(tiles)
        for start in range(0, len(passes), self.batch):
            batch = passes[start : start + self.batch]
            filled = batch + batch[-1:] * (self.batch - len(batch))
            outputs = self._forward([_flipped(tiles[tile], flip) for tile, flip in filled])
            for output, (tile, flip) in zip(outputs, batch, strict=False):
                back = _flipped(output, flip).to(self._dtype)
                before = sums[tile]
                sums[tile] = back if before is None else before.add_(back)
        means = [total for total in sums if total is not None]
        return [mean.div_(len(self._flips)) for mean in means] if len(self._flips) > 1 else means

    def _forward(self, tiles: Sequence[torch.Tensor]) -> torch.Tensor:
        # A view where there is one only.
        batch = torch.stack(list(tiles)) if len(tiles) > 1 else tiles[0][None]
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            outputs: torch.Tensor = self._network(batch)
        return outputs


def _flipped(values: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """Flip channels or heads [c, ...] along axes of the patch."""
    # torch copies even where there is nothing to flip.
    return torch.flip(values, [axis + 1 for axis in axes]) if axes else values


def _as(value: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return value.to(device, dtype if value.is_floating_point() else value.dtype)
