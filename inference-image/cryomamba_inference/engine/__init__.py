"""Runs a model over a volume: a generator of ticks and slabs of labels. What is behind `segment` may be replaced.

`segment` itself is in `engine.segmenting`, so that what needs no torch can be had without it.
"""

from cryomamba_inference.engine.image import Image, InvertedImage
from cryomamba_inference.engine.interface import Labels, Options, Rung, Segmentation, Slab, Tick, Tuning
from cryomamba_inference.engine.memory import available_memory

__all__ = [
    "Image",
    "InvertedImage",
    "Labels",
    "Options",
    "Rung",
    "Segmentation",
    "Slab",
    "Tick",
    "Tuning",
    "available_memory",
]
