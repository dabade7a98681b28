"""Runs tiles through the network as nnU-Net does: flips averaged, folds one after another."""

import contextlib
from collections.abc import Iterator, Sequence

import torch

from cryomamba_inference.engine.interface import Tuning
from cryomamba_inference.engine.tiling import mirrorings
from cryomamba_inference.model import Model

_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
"""By the number of a patch's axes."""
_AXES_OF = {torch.channels_last: 4, torch.channels_last_3d: 5}
"""Of the tensors that can be laid out so."""


class TileNetwork:
    """A model's network over batches of tiles.

    What a tile gets does not depend, to the last bit, on its place in a batch or on the other tiles in it, but it does
    on the size of the batch. So all batches of a job are of one size; the last one of a line is filled up.

    Args:
        model: Ready to run.
        mirroring: Whether to average over flips along the axes that training mirrored.
        batch: Tiles and flips of them that go through the network at once.
        dtype: Of what goes in and comes out; float64 is for tests.
        tuning: Switches for speed.
    """

    def __init__(self, model: Model, *, mirroring: bool, batch: int, dtype: torch.dtype, tuning: Tuning) -> None:
        self._network = model.network
        # Compiled once for all folds: weights are arguments of what is compiled, and batches are of one size.
        self._run = torch.compile(model.network, dynamic=False) if tuning.compiled else model.network
        self.device = model.device
        self._format = _CHANNELS_LAST[len(model.facts.patch_size)] if tuning.channels_last else torch.contiguous_format
        self._weights = [
            {name: self._placed(value, dtype) for name, value in fold.items()} for fold in model.parameters
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

    @contextlib.contextmanager
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
        if self._format is not torch.contiguous_format:
            batch = batch.contiguous(memory_format=self._format)
        with _repeatable(), torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            outputs: torch.Tensor = self._run(batch)
        return outputs

    def _placed(self, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Bring one of a fold's weights to the device."""
        if not value.is_floating_point():
            return value.to(self.device)
        kernel = value.ndim == _AXES_OF.get(self._format)
        return value.to(self.device, dtype, memory_format=self._format if kernel else torch.preserve_format)


def _repeatable() -> contextlib.AbstractContextManager[None]:
    """Keep cuDNN to kernels that give the same bits again, chosen by rule: nnU-Net lets it choose by timed trials."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)


def _flipped(values: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """Flip channels or heads [c, ...] along axes of the patch."""
    # torch copies even where there is nothing to flip.
    return torch.flip(values, [axis + 1 for axis in axes]) if axes else values
