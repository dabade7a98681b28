"""Volumes as arrays: a tomogram mapped read-only from its file, and the label file that fits beside it."""

from cryomamba_inference.volume.intensities import IntensityRange, check_intensities
from cryomamba_inference.volume.labels import LabelWriter, open_labels, result_content_type, result_name
from cryomamba_inference.volume.reading import Volume, open_volume

__all__ = [
    "IntensityRange",
    "LabelWriter",
    "Volume",
    "check_intensities",
    "open_labels",
    "open_volume",
    "result_content_type",
    "result_name",
]
