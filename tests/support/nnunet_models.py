"""nnU-Net models with random weights, written as nnU-Net's trainer writes them: tiny ones, unless told otherwise."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def _architecture(network: str, dimensions: int, features: Sequence[int], convolutions: int) -> dict[str, Any]:
    stages = len(features)
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": [[3] * dimensions] * stages,
            "strides": [[1] * dimensions] + [[2] * dimensions] * (stages - 1),
            ("n_conv_per_stage" if network == "PlainConvUNet" else "n_blocks_per_stage"): [convolutions] * stages,
            "n_conv_per_stage_decoder": [convolutions] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _plans(
    configuration: str,
    architecture: dict[str, Any],
    patch: list[int],
    spacing: list[float],
    transpose: list[int],
    channels: int,
) -> dict[str, Any]:
    resampling: dict[str, Any] = {}
    for name, order, is_seg in (("data", 3, False), ("seg", 1, True), ("probabilities", 1, False)):
        resampling[f"resampling_fn_{name}"] = "resample_data_or_seg_to_shape"
        arguments = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
        resampling[f"resampling_fn_{name}_kwargs"] = arguments
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 1.0, 1.5],
        "original_median_shape_after_transp": [20, 20, 20],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": transpose,
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(channel): {
                "mean": 0.1 + channel,
                "std": 1.1 + channel,
                "percentile_00_5": -2.5 - channel,
                "percentile_99_5": 2.5,
            }
            for channel in range(channels)
        },
        "configurations": {
            configuration: {
                "data_identifier": f"nnUNetPlans_{configuration}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": patch,
                "spacing": spacing,
                "normalization_schemes": ["ZScoreNormalization"] * channels,
                "use_mask_for_norm": [False] * channels,
                **resampling,
                "architecture": architecture,
                "batch_dice": False,
            }
        },
    }


def write_model(
    folder: Path,
    *,
    folds: tuple[str, ...] = ("0",),
    patch: tuple[int, ...] = (16, 16, 16),
    spacing: tuple[float, ...] | None = None,
    transpose: tuple[int, int, int] = (0, 1, 2),
    network: str = "PlainConvUNet",
    dataset: dict[str, Any] | None = None,
    mirroring: tuple[int, ...] | None = None,
    heads: int = 3,
    configuration: str | None = None,
    features: Sequence[int] = (4, 8),
    convolutions: int = 1,
    seed: int = 100,
    plans_changes: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Write an nnU-Net result folder and return it.

    Args:
        folder: Where.
        folds: Their names.
        patch: Two or three edges.
        spacing: In the plans' axes; None: one with which nothing is resampled.
        transpose: The plans' `transpose_forward`.
        network: `PlainConvUNet` or `ResidualEncoderUNet`.
        dataset: The content of dataset.json; None: two labels.
        mirroring: Axes that training mirrored; None: all.
        heads: Of the network.
        configuration: Its name; None: by the patch.
        features: Of each stage.
        convolutions: Of each stage, or residual blocks.
        seed: Of the first fold's weights.
        plans_changes: Changes the configuration's entry in the plans.
    """
    import json  # torch takes seconds: only tests that use it wait for it

    import numpy as np
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    configuration = configuration or ("3d_fullres" if len(patch) == 3 else "2d")
    spacing = spacing or (2.0, 1.0, 1.5)[-len(patch) :]
    dataset = dataset or {
        "channel_names": {"0": "density"},
        "labels": {"background": 0, "membrane": 1, "particle": 2},
        "file_ending": ".nii.gz",
    }
    channels = len(dataset["channel_names"])
    architecture = _architecture(network, len(patch), features, convolutions)
    plans = _plans(configuration, architecture, list(patch), list(spacing), list(transpose), channels)
    for number, fold in enumerate(folds):
        torch.manual_seed(seed + number)
        weights = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            channels,
            heads,
            deep_supervision=True,
        )
        optimiser = torch.optim.SGD(weights.parameters(), 0.01, momentum=0.99, nesterov=True)
        arguments = {"plans": plans, "configuration": configuration, "fold": fold, "dataset_json": dataset}
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.save(
            {
                "network_weights": weights.state_dict(),
                "optimizer_state": optimiser.state_dict(),
                "grad_scaler_state": None,
                "logging": {"ema_fg_dice": [np.float32(0.5), np.float64(0.25)], "train_losses": [1.0, 0.5]},
                "_best_ema": np.float64(0.5),
                "current_epoch": 2,
                "init_args": {**arguments, "device": torch.device("cpu")},
                "trainer_name": "nnUNetTrainer",
                "inference_allowed_mirroring_axes": mirroring or tuple(range(len(patch))),
            },
            folder / f"fold_{fold}" / "checkpoint_final.pth",
        )
    if plans_changes is not None:
        plans_changes(plans["configurations"][configuration])
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder
