"""Runs a model over a volume: a generator of ticks, then the labels. What is behind `segment` may be replaced."""

from cryomamba_inference.engine.interface import Labels, Options, Segmentation, Tick
from cryomamba_inference.engine.memory import available_memory
from cryomamba_inference.engine.segmenting import segment

__all__ = ["Labels", "Options", "Segmentation", "Tick", "available_memory", "segment"]
