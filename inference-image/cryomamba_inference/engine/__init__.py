"""Runs a model over a volume: a generator of ticks and slabs of labels. What is behind `segment` may be replaced."""

from cryomamba_inference.engine.image import Image, InvertedImage
from cryomamba_inference.engine.interface import Labels, Options, Segmentation, Slab, Tick
from cryomamba_inference.engine.memory import available_memory
from cryomamba_inference.engine.segmenting import segment

__all__ = [
    "Image",
    "InvertedImage",
    "Labels",
    "Options",
    "Segmentation",
    "Slab",
    "Tick",
    "available_memory",
    "segment",
]
