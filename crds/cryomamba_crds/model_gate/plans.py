"""What plans.json and dataset.json may say: every name that nnU-Net would look up and call is in a fixed list here.

nnU-Net finds classes and functions by the names in plans.json (``pydoc.locate``), so a plan runs code as a pickle does.
Field names are nnU-Net's (nnunetv2/utilities/plans_handling/plans_handler.py and label_handling.py, 2.8.1).
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, BinaryIO, Final, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError, model_validator

from cryomamba_crds.model_gate.errors import ModelError

_Model = TypeVar("_Model", bound=BaseModel)

LARGEST_JSON: Final = 256 * 1024
"""Bytes; nnU-Net's own are 5 to 50 KiB."""

_MOST_TOKENS = 8192  # commas and brackets: what makes Python objects out of JSON

_Count = Annotated[int, Field(strict=True, ge=1, le=4096)]
_Small = Annotated[int, Field(strict=True, ge=1, le=64)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Spacing = Annotated[float, Field(strict=True, gt=0, lt=1e9, allow_inf_nan=False)]
_Axis = Annotated[int, Field(strict=True, ge=0, le=2)]
_Word = Annotated[str, Field(min_length=1, max_length=63)]
_LabelId = Annotated[int, Field(strict=True, ge=0, le=32767)]

_PLAIN = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
_RESIDUAL = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"

Convolution = Literal[
    "torch.nn.modules.conv.Conv2d", "torch.nn.modules.conv.Conv3d", "torch.nn.Conv2d", "torch.nn.Conv3d"
]
Norm = Literal[
    "torch.nn.modules.instancenorm.InstanceNorm2d",
    "torch.nn.modules.instancenorm.InstanceNorm3d",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.batchnorm.BatchNorm3d",
    "torch.nn.InstanceNorm2d",
    "torch.nn.InstanceNorm3d",
    "torch.nn.BatchNorm2d",
    "torch.nn.BatchNorm3d",
]
Dropout = Literal[
    "torch.nn.modules.dropout.Dropout2d",
    "torch.nn.modules.dropout.Dropout3d",
    "torch.nn.Dropout2d",
    "torch.nn.Dropout3d",
]
Nonlinearity = Literal[
    "torch.nn.LeakyReLU",
    "torch.nn.ReLU",
    "torch.nn.modules.activation.LeakyReLU",
    "torch.nn.modules.activation.ReLU",
]
Resampling = Literal[
    "resample_data_or_seg_to_shape",
    "resample_torch_fornnunet",
    "resample_torch_simple",
    "no_resampling_hack",
]
Normalisation = Literal[
    "ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"
]
Reader = Literal[
    "SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient", "Tiff3DIO", "NaturalImage2DIO"
]

TRAINERS: Final = frozenset(
    "nnUNetTrainer" + variant
    for variant in (
        *("", "NoDA", "NoMirroring", "NoDeepSupervision", "CosAnneal", "_warmup", "_noDummy2DDA"),
        *("DA5", "DA5ord0", "DA5Segord0", "DA5_10epochs", "_DASegOrd0", "_DASegOrd0_NoMirroring"),
        *("_onlyMirror01", "_onlyMirror01_1500ep", "_onlyMirror01_DASegOrd0", "_onlyMirror01_DA5"),
        *("Adan", "Adan1en1", "Adan1en3", "Adan3en4", "AdanCosAnneal", "Adam", "Adam1en3", "Adam3en4"),
        *("VanillaAdam", "VanillaAdam1en3", "VanillaAdam3en4"),
        *("CELoss", "CELoss_5epochs", "DiceLoss", "DiceCELoss_noSmooth", "DiceTopK10Loss", "Topk10Loss"),
        *("Topk10LossLS01", "Benchmark_5epochs", "Benchmark_5epochs_noDataLoading"),
        *("_probabilisticOversampling", "_probabilisticOversampling_033", "_probabilisticOversampling_010"),
        *("_1epoch", "_5epochs", "_10epochs", "_20epochs", "_50epochs", "_100epochs", "_250epochs", "_500epochs"),
        *("_750epochs", "_2000epochs", "_4000epochs", "_8000epochs"),
        *("_250epochs_NoMirroring", "_2000epochs_NoMirroring", "_4000epochs_NoMirroring", "_8000epochs_NoMirroring"),
    )
)
"""The trainers of nnunetv2 that leave the network as the plans have it (not nnUNetTrainerBN and Primus)."""


class _Given(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _NormArguments(_Exact):
    eps: _Number = 1e-5
    affine: StrictBool = False
    momentum: _Number | None = None
    track_running_stats: StrictBool = False


class _DropoutArguments(_Exact):
    p: _Number = 0.5
    inplace: StrictBool = False


class _NonlinearityArguments(_Exact):
    inplace: StrictBool = False
    negative_slope: _Number = 0.01


class _UNetArguments(_Exact):
    n_stages: Annotated[int, Field(strict=True, ge=2, le=12)]
    features_per_stage: list[_Count]
    conv_op: Convolution
    kernel_sizes: list[list[_Small]]
    strides: list[list[_Small]]
    n_conv_per_stage_decoder: list[_Small]
    conv_bias: StrictBool = False
    norm_op: Norm | None = None
    norm_op_kwargs: _NormArguments | None = None
    dropout_op: Dropout | None = None
    dropout_op_kwargs: _DropoutArguments | None = None
    nonlin: Nonlinearity | None = None
    nonlin_kwargs: _NonlinearityArguments | None = None
    deep_supervision: StrictBool = False

    @property
    def blocks(self) -> list[int]:
        raise NotImplementedError

    @model_validator(mode="after")
    def _every_stage_is_described(self) -> Self:
        described = (self.features_per_stage, self.kernel_sizes, self.strides, self.blocks)
        if any(len(values) != self.n_stages for values in described):
            raise ValueError(f"features, kernel sizes, strides and blocks must name {self.n_stages} stages each")
        if len(self.n_conv_per_stage_decoder) != self.n_stages - 1:
            raise ValueError(f"n_conv_per_stage_decoder must name {self.n_stages - 1} stages")
        dimensions = self.conv_op[-2]
        if any(len(sizes) != int(dimensions) for sizes in (*self.kernel_sizes, *self.strides)):
            raise ValueError(f"kernel_sizes and strides must have {dimensions} entries a stage")
        if any(op is not None and op[-2] != dimensions for op in (self.norm_op, self.dropout_op)):
            raise ValueError(f"norm_op and dropout_op must have the {dimensions} dimensions of conv_op")
        return self


class _PlainArguments(_UNetArguments):
    n_conv_per_stage: list[_Small]
    nonlin_first: StrictBool = False

    @property
    def blocks(self) -> list[int]:
        return self.n_conv_per_stage


class _ResidualArguments(_UNetArguments):
    n_blocks_per_stage: list[_Small]
    bottleneck_channels: list[_Count] | None = None
    stem_channels: _Count | None = None

    @property
    def blocks(self) -> list[int]:
        return self.n_blocks_per_stage


_Importable = list[Literal["conv_op", "norm_op", "dropout_op", "nonlin"]]


class _PlainUNet(_Given):
    network_class_name: Literal["dynamic_network_architectures.architectures.unet.PlainConvUNet"]
    arch_kwargs: _PlainArguments
    kw_requires_import: _Importable = Field(alias="_kw_requires_import")


class _ResidualUNet(_Given):
    network_class_name: Literal["dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"]
    arch_kwargs: _ResidualArguments
    kw_requires_import: _Importable = Field(alias="_kw_requires_import")


class _ResamplingArguments(_Exact):
    is_seg: StrictBool = False
    order: Annotated[int, Field(strict=True, ge=0, le=5)] = 3
    order_z: Annotated[int, Field(strict=True, ge=0, le=5)] = 0
    force_separate_z: StrictBool | None = None
    separate_z_anisotropy_threshold: _Number = 3.0
    num_threads: _Small = 4
    memefficient_seg_resampling: StrictBool = False
    mode: Literal["linear", "nearest", "nearest-exact"] = "linear"


class Configuration(_Given):
    """One configuration of the plans, with what it inherits filled in."""

    preprocessor_name: Literal["DefaultPreprocessor"]
    patch_size: Annotated[list[Annotated[int, Field(strict=True, ge=1, le=1024)]], Field(min_length=2, max_length=3)]
    spacing: Annotated[list[_Spacing], Field(min_length=2, max_length=3)]
    normalization_schemes: Annotated[list[Normalisation], Field(min_length=1)]
    use_mask_for_norm: Annotated[list[StrictBool], Field(min_length=1)]
    resampling_fn_data: Resampling
    resampling_fn_data_kwargs: _ResamplingArguments
    resampling_fn_seg: Resampling
    resampling_fn_seg_kwargs: _ResamplingArguments
    resampling_fn_probabilities: Resampling
    resampling_fn_probabilities_kwargs: _ResamplingArguments
    architecture: Annotated[_PlainUNet | _ResidualUNet, Field(discriminator="network_class_name")]
    previous_stage: _Word | None = None

    @model_validator(mode="after")
    def _dimensions_agree(self) -> Self:
        dimensions = len(self.patch_size)
        if len(self.spacing) != dimensions:
            raise ValueError(f"spacing must have {dimensions} entries, as patch_size has")
        if self.architecture.arch_kwargs.conv_op[-2] != str(dimensions):
            raise ValueError(f"conv_op must have the {dimensions} dimensions of patch_size")
        return self


class _Intensities(_Given):
    mean: _Number
    std: _Number
    percentile_00_5: _Number
    percentile_99_5: _Number


class Plans(_Given):
    """The part of plans.json that all configurations share."""

    image_reader_writer: Reader
    label_manager: Literal["LabelManager"] = "LabelManager"
    transpose_forward: Annotated[list[_Axis], Field(min_length=3, max_length=3)]
    transpose_backward: Annotated[list[_Axis], Field(min_length=3, max_length=3)]
    original_median_spacing_after_transp: Annotated[list[_Spacing], Field(min_length=3, max_length=3)]
    foreground_intensity_properties_per_channel: dict[str, _Intensities]

    @model_validator(mode="after")
    def _transposes_are_inverse(self) -> Self:
        if [self.transpose_forward[axis] for axis in self.transpose_backward] != [0, 1, 2]:
            raise ValueError("transpose_forward and transpose_backward must be permutations that undo each other")
        return self


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


class Dataset(_Given):
    """dataset.json: what the channels and the labels are."""

    channel_names: dict[str, str]
    labels: dict[_Word, Annotated[list[_LabelId], BeforeValidator(_as_list), Field(min_length=1)]]
    regions_class_order: list[_LabelId] | None = None
    overwrite_image_reader_writer: Reader | Literal["None"] = "None"

    @property
    def regions(self) -> bool:
        """Whether labels are regions that may overlap."""
        return any(len(values) > 1 for values in self.labels.values())

    @property
    def foreground(self) -> dict[int, str]:
        """Names by the number that the result has there."""
        named = {name: values for name, values in self.labels.items() if name != "ignore" and set(values) != {0}}
        if self.regions_class_order is not None and self.regions:
            return dict(zip(self.regions_class_order, named, strict=True))
        return {values[0]: name for name, values in sorted(named.items(), key=lambda item: item[1])}

    @model_validator(mode="after")
    def _labels_can_be_decided(self) -> Self:
        if self.labels.get("background") != [0]:
            raise ValueError("labels must name background as 0")
        named = [values for name, values in self.labels.items() if name != "ignore" and set(values) != {0}]
        if not named:
            raise ValueError("labels must name something besides the background")
        if self.regions:
            order = self.regions_class_order or []
            if len(order) != len(named) or len(set(order)) != len(order) or 0 in order:
                raise ValueError("regions_class_order must name a different label for each region")
        elif sorted(values[0] for values in named) != list(range(1, len(named) + 1)):
            raise ValueError("labels must be numbered 0, 1, 2, ... without gaps")
        return self


def read_json(file: BinaryIO, size: int, field: str) -> dict[str, Any]:
    """Parse an untrusted JSON object.

    Args:
        file: Its bytes.
        size: How many there are said to be.
        field: How failures call it.

    Raises:
        ModelError: It is longer than `LARGEST_JSON`, unusually intricate, no JSON, or no object.
    """
    text = file.read(LARGEST_JSON + 1) if size <= LARGEST_JSON else b""
    if size > LARGEST_JSON or len(text) > LARGEST_JSON:
        raise ModelError(field, f"is larger than {LARGEST_JSON >> 10} KiB; nnU-Net's own are not")
    if sum(text.count(token) for token in (b",", b"[", b"{")) > _MOST_TOKENS:
        raise ModelError(field, f"has more than {_MOST_TOKENS} values; nnU-Net's own have not")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(field, f"is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(field, "is no JSON object")
    return value


def check(model: type[_Model], value: object, field: str) -> _Model:
    """Hold a JSON value against one of this module's models.

    Raises:
        ModelError: Its field is the first place that does not agree.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = [str(step) for step in first["loc"] if step not in (_PLAIN, _RESIDUAL)]
        if first["type"].startswith("union_tag"):
            place.append("network_class_name")
        found = "" if first["type"] in ("missing", "value_error") else f", found {first['input']!r:.100}"
        problem = first["msg"].removeprefix("Value error, ") + found
        joint = "" if not place else "." if ": " in field else ": "
        raise ModelError(field + joint + ".".join(place), problem) from error


def resolve_configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration with what it inherits filled in, in today's form.

    Plans from before nnU-Net 2.4 describe a PlainConvUNet without an ``architecture``; they are brought into today's
    form with the values that nnU-Net takes (``ConfigurationManager.__init__``).

    Raises:
        ModelError: The configuration is not there, inherits from itself, or has an old form that is not known here.
    """
    configurations = plans.get("configurations")
    resolved: dict[str, Any] = {}
    visited: list[str] = []
    following: object = name
    while following is not None:
        found = configurations.get(following) if isinstance(configurations, dict) else None
        if not isinstance(found, dict) or not isinstance(following, str) or following in visited:
            raise ModelError(f"plans.json: configurations.{str(following)[:100]}", "is missing or inherits from itself")
        visited.append(following)
        resolved = {**found, **resolved}
        following = found.get("inherits_from")
    resolved.pop("inherits_from", None)
    return resolved if "architecture" in resolved else _modernised(resolved, f"plans.json: configurations.{name}")


class _OldConfiguration(_Given):
    UNet_class_name: Literal["PlainConvUNet"]
    UNet_base_num_features: _Count
    unet_max_num_features: _Count
    n_conv_per_stage_encoder: Annotated[list[_Small], Field(min_length=2, max_length=12)]
    n_conv_per_stage_decoder: list[_Small]
    conv_kernel_sizes: list[list[_Small]]
    pool_op_kernel_sizes: list[list[_Small]]
    patch_size: Annotated[list[_Count], Field(min_length=2, max_length=3)]


def _modernised(configuration: dict[str, Any], field: str) -> dict[str, Any]:
    old = check(_OldConfiguration, configuration, field)
    stages = len(old.n_conv_per_stage_encoder)
    dimensions = len(old.patch_size)
    features = [min(old.UNet_base_num_features * 2**i, old.unet_max_num_features) for i in range(stages)]
    architecture = {
        "network_class_name": _PLAIN,
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": old.conv_kernel_sizes,
            "strides": old.pool_op_kernel_sizes,
            "n_conv_per_stage": old.n_conv_per_stage_encoder,
            "n_conv_per_stage_decoder": old.n_conv_per_stage_decoder,
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
    return {**configuration, "architecture": architecture}
