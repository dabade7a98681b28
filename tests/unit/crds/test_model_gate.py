"""The gate for models: what nnU-Net writes passes, what would run code or eat memory is refused by name."""

import io
import json
import os
import pickle
import stat
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import (
    ModelError,
    ModelFacts,
    check_channels,
    check_runnable,
    count_tiles,
    digest_of,
    extract_model,
    image_spacing,
    inspect_model,
    network_shape,
    open_model,
    pack_model,
    resolve_folds,
)

ARCHITECTURE: dict[str, Any] = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [2, 2],
        "n_conv_per_stage_decoder": [2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}
CONFIGURATION: dict[str, Any] = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [16, 16, 16],
    "spacing": [2.0, 1.0, 1.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
    "architecture": ARCHITECTURE,
}
PLANS: dict[str, Any] = {
    "dataset_name": "Dataset001_X",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [3.0, 1.0, 2.0],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [2, 0, 1],
    "transpose_backward": [1, 2, 0],
    "configurations": {"3d_fullres": CONFIGURATION},
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 0.0, "std": 1.0, "percentile_00_5": -3.0, "percentile_99_5": 3.0, "max": 4.0}
    },
}
DATASET: dict[str, Any] = {
    "channel_names": {"0": "density"},
    "labels": {"background": 0, "membrane": 1, "particle": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}
CHECKPOINT: dict[str, Any] = {
    "network_weights": OrderedDict(),
    "optimizer_state": {"state": {0: {"momentum": None}}, "param_groups": [{"lr": 0.01, "nesterov": True}]},
    "logging": {"ema_fg_dice": [0.1, 0.2, 0.3]},
    "init_args": {"plans": PLANS, "configuration": "3d_fullres", "fold": 0, "dataset_json": DATASET},
    "trainer_name": "nnUNetTrainer",
    "inference_allowed_mirroring_axes": (0, 1, 2),
}


def torch_zip(pickled: bytes, extra: dict[str, bytes] | None = None) -> bytes:
    """Return what torch.save would write around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {"data.pkl": pickled, "byteorder": b"little", "version": b"3\n", **(extra or {})}.items():
            archive.writestr(f"checkpoint_final/{name}", data)
    return buffer.getvalue()


def checkpoint(**changes: Any) -> bytes:
    return torch_zip(pickle.dumps({**CHECKPOINT, **changes}, protocol=2))


def archive_of(
    plans: object = PLANS,
    dataset: object = DATASET,
    checkpoints: dict[str, bytes] | None = None,
    *,
    root: str = "",
    extra: dict[str, bytes] | None = None,
) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{root}plans.json", json.dumps(plans))
        archive.writestr(f"{root}dataset.json", json.dumps(dataset))
        for fold, data in (checkpoints or {"0": checkpoint()}).items():
            archive.writestr(f"{root}fold_{fold}/checkpoint_final.pth", data)
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return buffer


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a copy of a JSON document with the value at a dotted path replaced."""
    result = deepcopy(document)
    *parents, last = path.split(".")
    place = result
    for parent in parents:
        place = place[parent]
    place[last] = value
    return result


def refusal_of(model: io.BytesIO | Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        inspect_model(model)
    assert caught.value.failure.code is FailureCode.VALIDATION_ERROR
    assert caught.value.failure.hint
    assert caught.value.failure.details == {"field": caught.value.field}
    return caught.value


def test_a_model_as_nnunet_exports_it_is_described() -> None:
    archive = archive_of(
        checkpoints={"1": checkpoint(), "0": checkpoint(), "10": checkpoint(), "all": checkpoint()},
        root="Dataset001_X/nnUNetTrainer__nnUNetPlans__3d_fullres/",
        extra={"Dataset001_X/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0/progress.png": b"png"},
    )

    facts = inspect_model(archive)

    assert facts == ModelFacts(
        configuration="3d_fullres",
        trainer_name="nnUNetTrainer",
        folds=("0", "1", "10"),
        has_fold_all=True,
        label_names={1: "membrane", 2: "particle"},
        regions=False,
        channel_names=("density",),
        patch_size=(16, 16, 16),
        spacing=(2.0, 1.0, 1.0),
        original_median_spacing=(3.0, 1.0, 2.0),
        transpose_forward=(2, 0, 1),
        mirroring_axes=(0, 1, 2),
        previous_stage=None,
    )
    assert facts.heads == 3


def test_labels_of_regions_are_named_by_the_class_order() -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "inner": 3, "ignore": 4}
    dataset = {**DATASET, "labels": labels, "regions_class_order": [1, 2, 3]}

    facts = inspect_model(archive_of(dataset=dataset))

    assert (facts.regions, facts.label_names, facts.heads) == (True, {1: "whole", 2: "core", 3: "inner"}, 3)


def test_a_configuration_is_taken_with_what_it_inherits() -> None:
    configurations = {"3d_fullres": {"inherits_from": "base", "patch_size": [8, 8, 8]}, "base": CONFIGURATION}
    plans = {**PLANS, "configurations": configurations}

    model = open_model(archive_of(plans=plans))

    assert model.facts.patch_size == (8, 8, 8)
    assert model.plans["configurations"] == {"3d_fullres": {**CONFIGURATION, "patch_size": [8, 8, 8]}}


def test_plans_from_before_the_architecture_key_are_brought_into_todays_form() -> None:
    old = {key: value for key, value in CONFIGURATION.items() if key != "architecture"} | {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 32,
        "unet_max_num_features": 40,
        "n_conv_per_stage_encoder": [2, 2],
        "n_conv_per_stage_decoder": [2],
        "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
    }

    model = open_model(archive_of(plans=changed(PLANS, "configurations.3d_fullres", old)))

    arguments = model.plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert arguments == {**ARCHITECTURE["arch_kwargs"], "features_per_stage": [32, 40]}


def test_old_plans_of_another_network_are_refused() -> None:
    plans = changed(PLANS, "configurations.3d_fullres", {"UNet_class_name": "ResidualEncoderUNet"})

    assert refusal_of(archive_of(plans=plans)).field == "plans.json: configurations.3d_fullres.UNet_class_name"


KWARGS = "configurations.3d_fullres.architecture.arch_kwargs"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{KWARGS}.nonlin", "os.system"),
        (f"{KWARGS}.conv_op", "subprocess.Popen"),
        (f"{KWARGS}.norm_op", "builtins.exec"),
        (f"{KWARGS}.dropout_op", "torch.hub.load"),
        (f"{KWARGS}.block", "os.system"),
        (f"{KWARGS}.nonlin_kwargs.command", "id"),
        (f"{KWARGS}.features_per_stage", [4, 100_000]),
        ("configurations.3d_fullres.architecture.network_class_name", "os.system"),
        ("configurations.3d_fullres.architecture._kw_requires_import", ["conv_op", "features_per_stage"]),
        ("configurations.3d_fullres.preprocessor_name", "EvilPreprocessor"),
        ("configurations.3d_fullres.resampling_fn_data", "evil"),
        ("configurations.3d_fullres.resampling_fn_probabilities", "evil"),
        ("configurations.3d_fullres.resampling_fn_seg_kwargs.device", "cuda"),
        ("configurations.3d_fullres.normalization_schemes", ["EvilNormalization"]),
        ("configurations.3d_fullres.patch_size", [16, 16, 0]),
        ("configurations.3d_fullres.spacing", [1.0, 1.0, -1.0]),
        ("label_manager", "EvilLabelManager"),
        ("image_reader_writer", "EvilIO"),
        ("transpose_forward", [0, 1, 3]),
        ("configurations.3d_fullres", 7),
    ],
)
def test_plans_that_name_anything_outside_of_the_list_are_refused(path: str, value: object) -> None:
    refusal = refusal_of(archive_of(plans=changed(PLANS, path, value)))

    assert refusal.field.startswith(f"plans.json: {path}")


def test_a_name_that_is_not_listed_for_import_is_refused_as_well() -> None:
    architecture = changed(ARCHITECTURE, "arch_kwargs.nonlin", "os.system") | {"_kw_requires_import": ["conv_op"]}

    refusal = refusal_of(archive_of(plans=changed(PLANS, "configurations.3d_fullres.architecture", architecture)))

    assert refusal.field == f"plans.json: {KWARGS}.nonlin"
    assert "os.system" in refusal.failure.message


def test_a_configuration_that_inherits_from_itself_is_refused() -> None:
    plans = changed(PLANS, "configurations.3d_fullres", {"inherits_from": "3d_fullres"})

    assert "inherits from itself" in refusal_of(archive_of(plans=plans)).failure.message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("labels", {"membrane": 1}),
        ("labels", {"background": 0}),
        ("labels", {"background": 0, "membrane": 1, "particle": 3}),
        ("labels", {"background": 0, "whole": [1, 2], "core": 2}),
        ("channel_names", ["density"]),
        ("overwrite_image_reader_writer", "EvilIO"),
    ],
)
def test_a_dataset_that_cannot_be_decided_is_refused(path: str, value: object) -> None:
    refusal = refusal_of(archive_of(dataset={**DATASET, path: value}))

    assert refusal.field.startswith("dataset.json")


class Command:
    """Pickles into a call of os.system."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "it-ran"
    pickled = pickle.dumps({**CHECKPOINT, "logging": Command(f"touch {marker}")}, protocol=protocol)

    refusal = refusal_of(archive_of(checkpoints={"0": torch_zip(pickled)}))

    assert refusal.field == "fold_0/checkpoint_final.pth"
    assert not marker.exists()


def test_a_refused_pickle_is_told_by_the_name_that_it_holds() -> None:
    pickled = pickle.dumps(Command("true"), protocol=2)

    assert "'posix.system'" in refusal_of(archive_of(checkpoints={"0": torch_zip(pickled)})).failure.message


def test_an_evil_pickle_in_the_last_fold_is_found() -> None:
    evil = torch_zip(pickle.dumps({**CHECKPOINT, "x": Command("true")}, protocol=2))

    assert refusal_of(archive_of(checkpoints={"0": checkpoint(), "7": evil})).field == "fold_7/checkpoint_final.pth"


def test_a_legacy_checkpoint_is_refused_with_the_way_to_save_it_again() -> None:
    refusal = refusal_of(archive_of(checkpoints={"0": pickle.dumps(CHECKPOINT, protocol=2)}))

    assert "legacy" in refusal.failure.message
    assert "torch.save" in refusal.failure.hint


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02}",
        b"\x80\x02u.",
        b"\x80\x02(((((t.",
        b"\x80\x02X\xff\xff\xff\x7fabc",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02cposix" + b"m" * 5000,
        b"\x80\x02" + b"N" * 100_000 + b".",
        b"\x80\x02K\x01.",
    ],
    ids=repr,
)
def test_a_broken_pickle_is_refused(pickled: bytes) -> None:
    assert refusal_of(archive_of(checkpoints={"0": torch_zip(pickled)})).field.startswith("fold_0/")


@pytest.mark.parametrize("name", ["code/__torch__.py", "constants.pkl", "data/0/x", "extra/data.pkl"])
def test_a_checkpoint_with_records_that_torch_save_does_not_write_is_refused(name: str) -> None:
    pickled = pickle.dumps(CHECKPOINT, protocol=2)

    assert name in refusal_of(archive_of(checkpoints={"0": torch_zip(pickled, {name: b"x"})})).failure.message


def test_a_trainer_that_may_change_the_network_is_refused() -> None:
    refusal = refusal_of(archive_of(checkpoints={"0": checkpoint(trainer_name="nnUNetTrainerEvil")}))

    assert refusal.field == "fold_0/checkpoint_final.pth: trainer_name"


def test_folds_of_two_trainings_are_refused() -> None:
    other = checkpoint(trainer_name="nnUNetTrainer_5epochs")

    assert refusal_of(archive_of(checkpoints={"0": checkpoint(), "1": other})).field == "fold_1/checkpoint_final.pth"


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:/evil", "a//b", "./plans.json"]
)
def test_a_path_out_of_the_archive_is_refused(name: str) -> None:
    assert "leads outside" in refusal_of(archive_of(extra={name: b"x"})).failure.message


def test_a_link_in_the_archive_is_refused() -> None:
    archive = archive_of()
    entry = zipfile.ZipInfo("fold_1/checkpoint_final.pth")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as writer:
        writer.writestr(entry, "/etc/passwd")

    assert "link" in refusal_of(archive).failure.message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_named_twice_is_refused() -> None:
    assert "twice" in refusal_of(archive_of(extra={"plans.json": json.dumps(PLANS).encode()})).failure.message


def test_more_than_one_model_in_an_archive_is_refused() -> None:
    refusal = refusal_of(archive_of(extra={"other/plans.json": b"{}"}))

    assert "there 2 times (in the top, other/)" in refusal.failure.message


@pytest.mark.parametrize("missing", ["plans.json", "dataset.json", "fold_0/checkpoint_final.pth"])
def test_a_missing_file_is_named(missing: str) -> None:
    whole = zipfile.ZipFile(archive_of())
    part = io.BytesIO()
    with zipfile.ZipFile(part, "w") as archive:
        for name in whole.namelist():
            if name != missing:
                archive.writestr(name, whole.read(name))

    assert refusal_of(part).field == missing.replace("fold_0", "fold_*")


@pytest.mark.parametrize("size", [0, 10, 300, 900])
def test_a_truncated_archive_is_refused(size: int) -> None:
    assert "is no readable zip" in refusal_of(io.BytesIO(archive_of().getvalue()[:size])).failure.message


def test_a_flipped_byte_in_a_stored_checkpoint_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("plans.json", json.dumps(PLANS))
        archive.writestr("dataset.json", json.dumps(DATASET))
        archive.writestr("fold_0/checkpoint_final.pth", checkpoint())
    damaged = bytearray(buffer.getvalue())
    damaged[damaged.index(b"nnUNetTrainer") + 2] ^= 1

    refusal_of(io.BytesIO(bytes(damaged)))


def test_an_entry_that_is_shorter_than_it_says_is_refused() -> None:
    archive = archive_of()
    with zipfile.ZipFile(archive, "a") as writer:
        writer.getinfo("fold_0/checkpoint_final.pth").file_size += 1000
        writer.writestr("makes-the-directory-be-written-again", b"")

    assert "ends early" in refusal_of(archive).failure.message


def _peak_of(archive: io.BytesIO) -> int:
    tracemalloc.start()
    try:
        refusal_of(archive)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _many_memories() -> bytes:
    """Return a pickle of tuples of a thousand dicts each, every dict remembered under another index."""
    dicts = [b"}r" + index.to_bytes(4, "little") for index in range(50_000)]
    tuples = [b"(" + b"".join(dicts[start : start + 1000]) + b"t" for start in range(0, len(dicts), 1000)]
    return b"\x80\x02" + b"".join(tuples) + b"."


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(lambda: archive_of(plans=changed(PLANS, f"{KWARGS}.nonlin", "os.system")), id="os.system"),
        pytest.param(
            lambda: archive_of(checkpoints={"0": torch_zip(pickle.dumps(Command("true"), protocol=2))}), id="pickle"
        ),
        pytest.param(
            lambda: archive_of(checkpoints={"0": torch_zip(b"\x80\x02" + b"]" * 8_000_000 + b".")}), id="deep pickle"
        ),
        pytest.param(
            lambda: archive_of(checkpoints={"0": torch_zip(b"\x80\x02X\x00\x00\x80\x00" + b"a" * 8_388_608 + b".")}),
            id="long string in a pickle",
        ),
        pytest.param(
            lambda: archive_of(checkpoints={"0": torch_zip(_many_memories())}),
            id="many memories",
        ),
        pytest.param(lambda: archive_of(plans={"x": "a" * 30_000_000}), id="long plans"),
        pytest.param(lambda: archive_of(dataset={"x": ["a"] * 60_000}), id="intricate dataset"),
        pytest.param(lambda: archive_of(plans=json.loads(_nested(900))), id="nested plans"),
        pytest.param(lambda: archive_of(extra={"zeros": bytes(100_000_000)}), id="bomb"),
        pytest.param(lambda: archive_of(extra={f"f{i}": b"" for i in range(20_000)}), id="many entries"),
    ],
)
def test_bad_models_are_refused_in_less_than_a_megabyte(archive: Callable[[], io.BytesIO]) -> None:
    inspect_model(archive_of())  # imports and caches are not this model's memory

    assert _peak_of(archive()) < 1_000_000


def test_the_gate_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, cryomamba_crds.model_gate; print({'torch', 'numpy', 'nnunetv2'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"


def _facts() -> ModelFacts:
    return inspect_model(archive_of())


def test_all_folds_are_the_numbered_ones() -> None:
    facts = replace(_facts(), folds=("0", "1"), has_fold_all=True)

    assert resolve_folds(facts, "all") == ("0", "1")
    assert resolve_folds(facts, ["all"]) == ("all",)
    assert resolve_folds(facts, [1]) == ("1",)


def test_all_folds_are_fold_all_where_there_is_no_other() -> None:
    assert resolve_folds(replace(_facts(), folds=(), has_fold_all=True), "all") == ("all",)


@pytest.mark.parametrize("requested", [[3], ["all"], [], [0, "all"]])
def test_folds_that_are_not_there_are_refused_with_those_that_are(requested: list[Any]) -> None:
    with pytest.raises(FailureError) as caught:
        resolve_folds(replace(_facts(), folds=("0", "1")), requested)

    assert caught.value.failure.details["available"] == ["0", "1"]
    assert "0, 1" in caught.value.failure.hint


@pytest.mark.parametrize(
    ("names", "channels", "words", "advice"),
    [
        (("density",), 2, "it has 2 channels and the model takes one channel (density)", "file of its own"),
        (("even", "odd"), 1, "it has one channel and the model takes 2 channels (even, odd)", "order: even, odd"),
        (("even", "odd"), 3, "it has 3 channels and the model takes 2 channels (even, odd)", "4D NIfTI"),
    ],
)
def test_a_volume_of_other_channels_than_the_models_is_refused(
    names: tuple[str, ...], channels: int, words: str, advice: str
) -> None:
    facts = replace(_facts(), channel_names=names)
    check_channels(facts, len(names))

    with pytest.raises(FailureError) as refused:
        check_channels(facts, channels)

    failure = refused.value.failure
    assert failure.code is FailureCode.VALIDATION_ERROR
    assert words in failure.message
    assert advice in failure.hint
    assert failure.details == {"field": "channels", "channels": channels, "model_channels": list(names)}


def test_a_model_whose_plans_leave_a_channel_out_is_refused() -> None:
    dataset = {**DATASET, "channel_names": {"0": "even", "1": "odd"}}
    configuration = CONFIGURATION | {
        "normalization_schemes": ["CTNormalization"] * 2,
        "use_mask_for_norm": [False] * 2,
    }
    given = PLANS["foreground_intensity_properties_per_channel"]["0"]
    plans = PLANS | {
        "configurations": {"3d_fullres": configuration},
        "foreground_intensity_properties_per_channel": {"0": given, "2": given},
    }

    assert "there is no 1" in refusal_of(archive_of(plans=plans, dataset=dataset)).failure.message


def test_later_stages_cannot_be_run() -> None:
    check_runnable(_facts())
    check_runnable(replace(_facts(), channel_names=("a", "b")))

    with pytest.raises(ModelError, match="3d_lowres"):
        check_runnable(replace(_facts(), previous_stage="3d_lowres"))


def test_a_packed_model_holds_what_is_needed_and_is_the_same_every_time(tmp_path: Path) -> None:
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / "fold_0" / "validation").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(checkpoint())
    (folder / "fold_0" / "checkpoint_best.pth").write_bytes(b"not needed")
    (folder / "postprocessing.pkl").write_bytes(pickle.dumps(Command("true")))

    digest = pack_model(folder, tmp_path / "a.zip")
    os.utime(folder / "plans.json", (0, 0))

    assert pack_model(folder, tmp_path / "b.zip") == digest == digest_of(tmp_path / "a.zip")
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == [
        "dataset.json",
        "fold_0/checkpoint_final.pth",
        "plans.json",
    ]
    assert inspect_model(tmp_path / "a.zip") == inspect_model(folder)


def test_a_folder_without_a_checkpoint_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "plans.json").write_text("{}")
    (tmp_path / "dataset.json").write_text("{}")

    with pytest.raises(ModelError, match="is missing"):
        pack_model(tmp_path, tmp_path / "a.zip")

    assert not (tmp_path / "a.zip").exists()


def test_unpacking_writes_the_needed_files_without_the_folder_around_them(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    path.write_bytes(archive_of(root="a/b/", extra={"a/b/postprocessing.pkl": b"x", "a/other": b"x"}).getvalue())
    target = tmp_path / "out"
    target.mkdir()

    extract_model(path, target)

    files = {file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file()}
    assert files == {"plans.json", "dataset.json", "fold_0/checkpoint_final.pth"}
    assert inspect_model(target) == _facts()


def test_ignoring_the_voxel_size_gives_the_volume_that_of_the_training_in_the_files_axes() -> None:
    facts = replace(_facts(), transpose_forward=(2, 0, 1), original_median_spacing=(3.0, 1.0, 2.0))

    assert image_spacing(facts, "ignore", (9.0, 9.0, 9.0)) == (1.0, 2.0, 3.0)


def test_a_voxel_size_in_nm_becomes_the_unit_of_the_plans() -> None:
    assert image_spacing(_facts(), "nm", (1.0, 2.0, 3.0)) == (3.0, 2.0, 1.0)
    assert image_spacing(_facts(), "angstrom", (1.0, 2.0, 3.0)) == (30.0, 20.0, 10.0)
    with pytest.raises(FailureError, match="unknown"):
        image_spacing(_facts(), "nm", None)


def test_the_networks_shape_follows_the_plans_axes_and_spacing() -> None:
    facts = replace(_facts(), transpose_forward=(2, 0, 1), spacing=(2.0, 1.0, 1.0))

    assert network_shape(facts, (10, 20, 30), (1.0, 2.0, 3.0)) == (45, 10, 40)


def test_a_2d_model_keeps_the_slices_apart() -> None:
    facts = replace(_facts(), transpose_forward=(2, 0, 1), patch_size=(16, 16), spacing=(1.0, 1.0))

    assert network_shape(facts, (10, 20, 30), (1.0, 2.0, 3.0)) == (30, 10, 40)
    assert count_tiles((30, 10, 40), (16, 16), 0.5) == 30 * 1 * 4


def test_tiles_are_counted_as_nnunet_counts_them() -> None:
    # nnU-Net's own example: 110 voxels, a patch of 64, half steps: three steps at 0, 23, 46.
    assert count_tiles((110, 64, 10), (64, 64, 64), 0.5) == 3


@given(
    size=st.integers(1, 2000),
    patch=st.integers(1, 320),
    step=st.floats(0.1, 1.0),
)
def test_every_voxel_is_covered_by_the_counted_tiles(size: int, patch: int, step: float) -> None:
    tiles = count_tiles((size, 1, 1), (patch, 1, 1), step)

    reach = patch + (tiles - 1) * patch * step
    assert reach >= size - 1e-6
    assert tiles == 1 or reach - patch * step < max(size, patch) + 1e-6
