"""What a caller of the engine sees: options in, ticks and slabs of labels on the way, a summary at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds.model_card import SpacingPolicy

Labels: TypeAlias = NDArray[np.integer[Any]]
"""Label numbers: uint8 for up to 254 labels, else int16."""

Stage = Literal["preprocess", "infer", "assemble"]


@dataclass(frozen=True)
class Tuning:
    """How the network is run to be fast; the last bits of the result depend on it. All off is what nnU-Net does."""

    compiled: bool = False
    """By `torch.compile`. The first tile takes minutes."""
    channels_last: bool = False
    """With channels as the fastest axis of weights and activations, which a GPU's units for half precision want."""


@dataclass(frozen=True)
class Options:
    """How a volume is segmented."""

    step_size: float = 0.5
    """Distance of neighbouring tiles as a fraction of the patch, 0.1 to 1."""
    mirroring: bool = True
    """Average over flips along the axes that training mirrored."""
    spacing_policy: SpacingPolicy = "ignore"
    """How the voxel size meets the unitless spacing of the plans."""
    save_probabilities: bool = False
    """Give each class's probabilities as well."""
    cpu_fallback: bool = False
    """Go on on the CPU where nothing else is left to give up for a GPU's memory."""
    preview_plane: int | None = None
    """Z index of the slice that `Tick.partial_labels` shows; None: the middle one."""
    tuning: Tuning = Tuning()
    """Of the streaming engine."""


@dataclass(frozen=True)
class Rung:
    """What is left of the memory that a run began with; see `engine.ladder`. The last bits of a result depend on it."""

    passes_at_once: int
    """Of the network."""
    sums_in_main_memory: bool = False
    """Whether tiles are summed there, whatever the device."""
    steps: tuple[str, ...] = ()
    """What was given up until there, in words."""
    on_cpu: bool = False
    """Whether the network runs there, whatever the device."""


@dataclass(frozen=True)
class Tick:
    """A sign of progress."""

    stage: Stage
    done: int
    """Tiles done, over all folds; never falls."""
    total: int
    """Tiles over all folds; while preprocessing an upper bound, exact afterwards."""
    partial_labels: Callable[[], Labels]
    """Return the labels of the preview plane as far as tiles have covered it, [y, x] of the input; 0 elsewhere."""
    steps: tuple[str, ...] = ()
    """What was given up so far because memory ran out, in words."""


@dataclass(frozen=True)
class Slab:
    """Planes of the result that are final; slabs follow each other from the first plane to the last without a gap.

    The arrays are good until the generator is asked for more.
    """

    start: int
    """Z index of the first plane."""
    labels: Labels
    """[z, y, x], whole planes of the input's shape."""
    probabilities: NDArray[np.float16] | None
    """[c, z, y, x] if asked for: of exclusive labels, the background first, they sum to 1; of regions, each for itself.
    """
    rung: Rung | None = None
    """On which they were made; None from whatever does not give anything up itself."""


@dataclass(frozen=True)
class Segmentation:
    """What is told at the end, when all slabs have been given."""

    engine: Literal["streaming", "nnunet"]
    """Whether tiles were summed here, or by nnU-Net's own predictor."""
    tiles: int
    """Over all folds."""
    steps: tuple[str, ...]
    """What was given up because memory ran out, in words, in this order."""
    passes_at_once: int
    """Of the network, at the end. The last bits of the result depend on it."""
    seconds_per_tile: float | None
    """Wall time of inference, mirrored passes included, by tile; None where all was done before."""
    device: str
    """Where the network was at the end, as torch calls it."""
