"""What a model says of a volume, computed as nnU-Net does, but whole, in float64, and without rounding to float16."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, determine_do_sep_z_and_axis
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from numpy.typing import NDArray

from cryomamba_inference.model import Model

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Reference:
    """Axes [z, y, x] of the file."""

    logits: NDArray[np.float64]
    """[c, z, y, x]; 0 outside the non-zero box."""
    labels: NDArray[np.integer[Any]]
    margin: NDArray[np.float64]
    """By how much the best label is ahead: of the two largest logits, or the smallest absolute logit of regions."""


def nnunet_network(model: Model) -> torch.nn.Module:
    """A network built by nnU-Net from the model's plans."""
    architecture = model.configuration.configuration["architecture"]
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        len(model.facts.channel_names),
        model.facts.heads,
        deep_supervision=False,
    )


def nnunet_predictor(model: Model, step_size: float, mirroring: bool, device: torch.device = CPU) -> nnUNetPredictor:
    """nnU-Net's own predictor for the model, on a GPU with all that it keeps there."""
    predictor = nnUNetPredictor(
        tile_step_size=step_size,
        use_mirroring=mirroring,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        nnunet_network(model),
        model.plans,
        model.configuration,
        model.parameters,
        model.dataset,
        "nnUNetTrainer",
        model.facts.mirroring_axes,
    )
    return predictor


def reference(
    model: Model,
    image: NDArray[np.float32],
    spacing: tuple[float, float, float],
    *,
    step_size: float,
    mirroring: bool,
) -> Reference:
    """Segment an image [c, z, y, x] under a spacing [z, y, x]."""
    forward, configuration = model.plans.transpose_forward, model.configuration
    data = image.astype(np.float64).transpose(0, *(axis + 1 for axis in forward))
    data, seg, box = crop_to_nonzero(data, None)
    shape = data.shape[1:]
    current = [spacing[axis] for axis in forward]
    target = configuration.spacing
    target = target if len(target) == 3 else [current[0], *target]
    new_shape = compute_new_shape(shape, current, target)
    data = _normalised(model, data, seg)
    data = _resampled(configuration.configuration, "data", data, new_shape, current, target)
    logits = _predicted(model, data, step_size, mirroring)
    logits = _resampled(configuration.configuration, "probabilities", logits, shape, target, current)
    placed = np.zeros((len(logits), *(image.shape[axis + 1] for axis in forward)))
    inside = tuple(slice(*edges) for edges in box)
    placed[(slice(None), *inside)] = logits
    covered = np.zeros(placed.shape[1:], dtype=bool)
    covered[inside] = True
    labels, margin = _decided(model, placed)
    labels[~covered] = 0
    margin[~covered] = np.inf
    backward = model.plans.transpose_backward
    return Reference(
        placed.transpose(0, *(axis + 1 for axis in backward)), labels.transpose(backward), margin.transpose(backward)
    )


def _normalised(model: Model, data: NDArray[np.float64], seg: NDArray[Any]) -> NDArray[np.float64]:
    from nnunetv2.preprocessing.normalization import default_normalization_schemes

    for channel, name in enumerate(model.configuration.normalization_schemes):
        scheme = getattr(default_normalization_schemes, name)
        properties = model.plans.foreground_intensity_properties_per_channel[str(channel)]
        masked = model.configuration.use_mask_for_norm[channel]
        data[channel] = scheme(masked, properties, np.float64).run(data[channel], seg[0])
    return data


def _resampled(
    configuration: dict[str, Any], what: str, data: NDArray[np.float64], shape: Any, current: Any, new: Any
) -> NDArray[np.float64]:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    function = configuration[f"resampling_fn_{what}"]
    arguments = configuration[f"resampling_fn_{what}_kwargs"]
    if tuple(shape) == data.shape[1:] or function == "no_resampling_hack":
        return data
    if function == "resample_data_or_seg_to_shape":
        return resample_data_or_seg_to_shape(data, shape, current, new, **arguments)
    # nnU-Net's own casts to float32.
    assert function == "resample_torch_fornnunet"
    force = arguments.get("force_separate_z")
    separate, axis = determine_do_sep_z_and_axis(force, current, new)
    values = torch.from_numpy(data)[None]
    if not separate:
        return torch.nn.functional.interpolate(values, tuple(map(int, shape)), mode="trilinear")[0].numpy()
    within = [int(edge) for edge in shape]
    within[axis] = data.shape[1 + axis]
    values = torch.nn.functional.interpolate(values, within, mode="trilinear")
    return torch.nn.functional.interpolate(values, tuple(map(int, shape)), mode="nearest-exact")[0].numpy()


@torch.inference_mode()
def _predicted(model: Model, data: NDArray[np.float64], step_size: float, mirroring: bool) -> NDArray[np.float64]:
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    predictor = nnunet_predictor(model, step_size, mirroring)
    network = predictor.network.double().eval()
    patch = tuple(model.configuration.patch_size)
    weights = compute_gaussian(patch, sigma_scale=1 / 8, value_scaling_factor=10, device=CPU).double()
    padded, revert = pad_nd_image(torch.from_numpy(data), patch, "constant", {"value": 0}, True, None)
    axes = [axis + 2 for axis in (model.facts.mirroring_axes or ()) if mirroring]
    flips = [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]
    total = torch.zeros((model.facts.heads, *padded.shape[1:]), dtype=torch.float64)
    for parameters in model.parameters:
        network.load_state_dict(parameters)
        sums, counts = torch.zeros_like(total), torch.zeros(padded.shape[1:], dtype=torch.float64)
        for tile in predictor._internal_get_sliding_window_slicers(padded.shape[1:]):
            seen = padded[tile][None]
            said = sum(torch.flip(network(torch.flip(seen, flip)), flip) for flip in flips)[0] / len(flips)
            sums[tile] += said * weights
            counts[tile[1:]] += weights
        total += sums / counts
    total /= len(model.parameters)
    compute_gaussian.cache_clear()
    return total[(slice(None), *revert[1:])].numpy()


def _decided(model: Model, logits: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if not model.facts.regions:
        ordered = np.sort(logits, axis=0)
        return logits.argmax(axis=0), ordered[-1] - ordered[-2]
    labels = np.zeros(logits.shape[1:], dtype=np.int64)
    for one, label in zip(logits, model.facts.label_names, strict=True):
        labels[one > 0] = label
    return labels, np.abs(logits).min(axis=0)
