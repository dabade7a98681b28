"""How much memory one pass of a network takes: nnU-Net's two U-Nets walked through, layer by layer, on paper."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_FLOAT = 4
_HALF = 2
_BLOCK = 16
"""oneDNN lays features out in blocks of so many (8 without AVX-512)."""
_PLAIN = 3
"""Up to so many features it takes as they are."""
_DIRECT = 20480
"""Up to so many features x planes x rows torch unfolds a single input by the voxels of the kernel, without oneDNN
(`use_mkldnn` in ATen's `Convolution.cpp`)."""
_MAPPED = 32 << 20
"""Smaller arrays come from the C library's heap. It keeps what is freed, and has gaps: a third of all of them, and up
to `_KEPT` bytes, were the most that was measured."""
_KEPT = 96 << 20

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Map:
    """What a layer gives: features over a grid."""

    features: int
    edges: Shape

    @property
    def voxels(self) -> int:
        return math.prod(self.edges)

    @property
    def size(self) -> int:
        """Numbers in it, an input of the batch."""
        return self.features * self.voxels

    @property
    def blocked(self) -> int:
        """Numbers in a copy of it in blocks of features."""
        return 0 if self.features <= _PLAIN else math.ceil(self.features / _BLOCK) * _BLOCK * self.voxels


@dataclass(frozen=True)
class Network:
    """What the plans say of one."""

    residual: bool
    features: tuple[int, ...]
    kernels: tuple[Shape, ...]
    strides: tuple[Shape, ...]
    blocks: tuple[int, ...]
    """Convolutions a stage of the encoder, or residual blocks of two."""
    stem: int | None
    """Features of the convolution in front of residual stages."""
    narrow: tuple[int, ...] | None
    """Features in the middle of residual blocks of three convolutions; None where they have two."""
    decoder: tuple[int, ...]
    """Convolutions a stage of the decoder, from the bottom up."""
    channels: int
    heads: int

    @property
    def weights(self) -> int:
        """How many numbers its kernels hold; biases and norms are next to nothing beside them."""
        total, before = 0, self.channels
        if self.stem is not None:
            total, before = math.prod(self.kernels[0]) * before * self.stem, self.stem
        for stage, width in enumerate(self.features):
            for _ in range(self.blocks[stage]):
                total += self._block_weights(stage, before)
                before = width
        for stage, count in enumerate(self.decoder):
            level = len(self.features) - 2 - stage
            width, below = self.features[level], self.features[level + 1]
            total += below * width * math.prod(self.strides[level + 1])
            total += math.prod(self.kernels[level]) * width * width * (2 + count - 1)
        return total + self.heads * self.features[0]

    def _block_weights(self, stage: int, before: int) -> int:
        width, kernel = self.features[stage], math.prod(self.kernels[stage])
        if not self.residual:
            return kernel * before * width
        past = before * width if before != width else 0
        if self.narrow is None:
            return past + kernel * width * (before + width)
        middle = self.narrow[stage]
        return past + before * middle + kernel * middle * middle + middle * width


def network_of(configuration: Mapping[str, Any], channels: int, heads: int) -> Network:
    """Read a network off the plans.

    Args:
        configuration: The plans' entry.
        channels: Of the input.
        heads: Of the output.
    """
    arguments = configuration["architecture"]["arch_kwargs"]
    residual = "n_blocks_per_stage" in arguments
    features = tuple(arguments["features_per_stage"])
    narrow = arguments.get("bottleneck_channels") if residual else None
    return Network(
        residual=residual,
        features=features,
        kernels=tuple(map(tuple, arguments["kernel_sizes"])),
        strides=tuple(map(tuple, arguments["strides"])),
        blocks=tuple(arguments["n_blocks_per_stage" if residual else "n_conv_per_stage"]),
        stem=(arguments.get("stem_channels") or features[0]) if residual else None,
        narrow=tuple(narrow) if narrow else None,
        decoder=tuple(arguments["n_conv_per_stage_decoder"]),
        channels=channels,
        heads=heads,
    )


def pass_bytes(network: Network, patch: Sequence[int], batch: int, *, on_gpu: bool) -> int:
    """Return the peak of one pass, input and output included, weights not.

    Every layer's arrays are counted while Python holds them: the maps that are handed across, the input of the stage
    and of the block, and a convolution's own copies, which oneDNN makes in blocks of features. On a GPU numbers are
    taken to be half as long, and the copies to be those that cuDNN makes between layouts; that has not been measured.

    Fitted on a CPU (torch 2.15, one thread, AVX-512) to 18 networks, plain and residual, 2d and 3d, of 4 to 512
    features, patches of 16 to 128 voxels an edge (512 in 2d), in batches of 1 and 2. Plans as nnU-Net makes them (32 to
    320 features) with a patch of 128 x 128 x 128 took 1.80 and 1.81 GB and are told as 1.88.

    Args:
        network: It.
        patch: Two or three edges.
        batch: Inputs at once.
        on_gpu: Whether it runs on one.
    """
    walk = _Walk(batch, on_gpu=on_gpu)
    _decode(network, _encode(network, tuple(patch), walk), walk)
    return walk.peak + (0 if on_gpu else min(_KEPT, walk.small // 3))


class _Walk:
    """Bytes that are there, layer by layer."""

    def __init__(self, batch: int, *, on_gpu: bool) -> None:
        self._batch = batch
        self._on_gpu = on_gpu
        self._each = batch * (_HALF if on_gpu else _FLOAT)
        self.peak = 0
        self.small = 0
        """Of all arrays that the C library may keep when they are freed."""

    def see(self, numbers: int) -> None:
        """Count what is there at a moment, an input of the batch."""
        self.peak = max(self.peak, self._each * numbers)

    def convolve(self, held: int, before: _Map, after: _Map, kernel: Shape) -> None:
        """Count a convolution and the norm after it; what comes then changes its input in place.

        Args:
            held: Numbers that are there beside its input and its output.
            before: Its input.
            after: Its output.
            kernel: Its edges.
        """
        taps = math.prod(kernel)
        # torch leaves those of one voxel to itself where there is but one thread.
        unfolded = before.features * taps * after.voxels if self._is_direct(before) or taps == 1 else None
        self._layer(held, before, after, unfolded)

    def enlarge(self, held: int, before: _Map, after: _Map) -> None:
        """Count a transposed convolution, whose steps are as long as its kernel; arguments as in `convolve`."""
        self._layer(held, before, after, after.size if self._is_direct(before) else None)

    def _is_direct(self, before: _Map) -> bool:
        return self._batch == 1 and before.features * math.prod(before.edges[:2]) <= _DIRECT

    def _layer(self, held: int, before: _Map, after: _Map, unfolded: int | None) -> None:
        if self._on_gpu or unfolded is None:
            own = before.blocked + max(after.blocked, after.size)
        else:
            own = unfolded + after.size
        # Its output is there twice while it is turned back from blocks, and while the norm makes its own.
        self.see(held + before.size + max(own, 2 * after.size))
        for size in (before.blocked, after.blocked, after.size):
            self.small += self._each * size if self._each * size < _MAPPED else 0


def _encode(network: Network, patch: Shape, walk: _Walk) -> list[_Map]:
    """Return the input and the maps that are handed across; all of them are there to the end."""
    x = _Map(network.channels, patch)
    skips = [x]
    if network.stem is not None:
        before, x = x, _Map(network.stem, patch)
        walk.convolve(0, before, x, network.kernels[0])
    for stage, width in enumerate(network.features):
        held = sum(skip.size for skip in skips)
        # A stage's input is held to its end. It is one of those already, but for the stem's output.
        of_stem = stage == 0 and network.stem is not None
        into = x.size if of_stem else 0
        for block in range(network.blocks[stage]):
            stride = network.strides[stage] if block == 0 else (1,) * len(patch)
            after = _Map(width, tuple(-(-edge // step) for edge, step in zip(x.edges, stride, strict=True)))
            others = held + into if block else held - (0 if of_stem else x.size)
            if network.residual:
                _residual_block(network, stage, (x, after), others, walk)
            else:
                walk.convolve(others, x, after, network.kernels[stage])
            x = after
        skips.append(x)
    return skips


def _residual_block(network: Network, stage: int, ends: tuple[_Map, _Map], held: int, walk: _Walk) -> None:
    before, after = ends
    kernel, one = network.kernels[stage], (1,) * len(after.edges)
    if before != after:
        walk.convolve(held + before.size, _Map(before.features, after.edges), after, one)
        held += after.size
    if network.narrow is None:
        walk.convolve(held, before, after, kernel)
        walk.convolve(held + before.size, after, after, kernel)
        return
    middle = network.narrow[stage]
    wide, deep = _Map(middle, before.edges), _Map(middle, after.edges)
    walk.convolve(held, before, wide, one)
    walk.convolve(held + before.size, wide, deep, kernel)
    walk.convolve(held + before.size, deep, after, one)


def _decode(network: Network, skips: list[_Map], walk: _Walk) -> None:
    held = sum(skip.size for skip in skips)
    below, lower = skips[-1], 0
    for stage, count in enumerate(network.decoder):
        level = len(network.features) - 2 - stage
        across = skips[level + 1]
        walk.enlarge(held if stage else held - below.size, below, across)
        # What comes from below is held to the end of the stage; the first time it is one of those handed across.
        lower = below.size if stage else 0
        both = _Map(2 * across.features, across.edges)
        walk.see(held + lower + across.size + both.size)
        walk.convolve(held + lower, both, across, network.kernels[level])
        for _ in range(count - 1):
            walk.convolve(held + lower + both.size, across, across, network.kernels[level])
        below = across
    walk.convolve(held + lower, below, _Map(network.heads, below.edges), (1,) * len(below.edges))
