"""What the streaming engine needs to know of a model, and what of a model it can't express."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryomamba_crds.model_gate import ModelFacts, network_shape
from cryomamba_inference.engine.image import Box, Shape
from cryomamba_inference.engine.resampling import Resampling, UnsupportedError, choose_resampling
from cryomamba_inference.engine.tiling import in_file_axes

_MASKED = "ZScoreNormalization"
"""The one scheme that looks at `use_mask_for_norm`."""


@dataclass(frozen=True)
class Route:
    """The shapes that a volume goes through, [z, y, x]."""

    into: Resampling
    """From the non-zero box to what the network sees."""
    back: Resampling
    """And of its logits back to the box."""

    @property
    def seen(self) -> Shape:
        """The network's volume, without padding."""
        return self.into.target


def plan_route(
    facts: ModelFacts, configuration: Mapping[str, Any], box: Box, spacing: tuple[float, float, float]
) -> Route:
    """Return how a volume is resampled on its way into the network and back.

    Args:
        facts: The model's.
        configuration: The plans' entry for it.
        box: Of the volume, [z, y, x].
        spacing: Under which nnU-Net is handed the volume, [z, y, x].

    Raises:
        UnsupportedError: The model can't be run by the streaming engine; the text says because of what.
    """
    schemes, masks = configuration["normalization_schemes"], configuration["use_mask_for_norm"]
    if any(scheme == _MASKED and masked for scheme, masked in zip(schemes, masks, strict=True)):
        raise UnsupportedError("normalises within the non-zero mask only (use_mask_for_norm)")
    depth, height, width = (stop - start for start, stop in box)
    shape = (depth, height, width)
    into, into_arguments = _function(configuration, "data")
    back, back_arguments = _function(configuration, "probabilities")
    seen = in_file_axes(network_shape(facts, shape, spacing), facts.transpose_forward)
    if into == "no_resampling_hack":
        seen = shape
    in_plan_axes = [spacing[axis] for axis in facts.transpose_forward]
    target = facts.spacing if len(facts.spacing) == len(shape) else (in_plan_axes[0], *facts.spacing)
    network_spacing = [target[facts.transpose_forward.index(axis)] for axis in range(len(shape))]
    route = Route(
        choose_resampling(into, into_arguments, (shape, seen), (spacing, network_spacing)),
        choose_resampling(back, back_arguments, (seen, shape), (network_spacing, spacing)),
    )
    if "cubic" in route.back.rules:
        raise UnsupportedError("resamples logits by cubic splines")
    return route


def _function(configuration: Mapping[str, Any], what: str) -> tuple[str, Mapping[str, Any]]:
    return configuration[f"resampling_fn_{what}"], configuration[f"resampling_fn_{what}_kwargs"]
