"""nnU-Net's normalisation schemes, with the whole volume's statistics, applied piece by piece.

Source: ``nnunetv2.preprocessing.normalization.default_normalization_schemes`` (2.8.1). The difference: mean and
deviation are summed in float64, where nnU-Net's float32 sums lose digits on volumes of many voxels.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_inference.engine.survey import Intensities

Normalise = Callable[[NDArray[Any]], None]
"""Changes intensities in place, float32 or float64; rising intensities stay in their order."""

_EPSILON = 1e-8
_BYTE = 255


def normalisation(scheme: str, volume: Intensities, training: Mapping[str, float]) -> Normalise:
    """Return how a channel's intensities are normalised.

    Args:
        scheme: nnU-Net's name of it.
        volume: The channel's, within the volume's non-zero box.
        training: The plan's ``foreground_intensity_properties`` of the channel: what the training volumes had.

    Raises:
        FailureError: VALIDATION_ERROR; the scheme is for pictures with values from 0 to 255 and the volume is none.
    """
    if scheme == "ZScoreNormalization":
        return _shifted(volume.mean, max(volume.std, _EPSILON))
    if scheme == "CTNormalization":
        low, high = training["percentile_00_5"], training["percentile_99_5"]
        shift = _shifted(training["mean"], max(training["std"], _EPSILON))

        def clip_and_shift(values: NDArray[Any]) -> None:
            np.clip(values, low, high, out=values)
            shift(values)

        return clip_and_shift
    if scheme == "RescaleTo01Normalization":
        return _rescaled(volume)
    if scheme == "RGBTo01Normalization":
        if volume.low < 0 or volume.high > _BYTE:
            raise FailureError(
                FailureCode.VALIDATION_ERROR,
                f"volume: the model takes values from 0 to 255; the volume's go from {volume.low:g} to {volume.high:g}",
                hint="Rescale the volume to bytes as the training volumes were, or train the model with another "
                "normalisation.",
            )
        return _shifted(0, _BYTE)
    if scheme == "NoNormalization":
        return lambda _: None
    raise ValueError(f"no normalisation is called {scheme!r}")


def _shifted(mean: float, divisor: float) -> Normalise:
    def apply(values: NDArray[Any]) -> None:
        values -= mean
        values /= divisor

    return apply


def _rescaled(volume: Intensities) -> Normalise:
    def apply(values: NDArray[Any]) -> None:
        low, high = values.dtype.type(volume.low), values.dtype.type(volume.high)
        values -= low
        values /= max(high - low, values.dtype.type(_EPSILON))

    return apply
