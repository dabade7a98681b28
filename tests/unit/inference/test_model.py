"""Models from the catalogue into memory: unpacked once, checked twice, with the weights of every fold."""

import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import ModelError, digest_of, inspect_model, pack_model
from cryomamba_inference.model import fetch_model, load_model, select_device

CPU = torch.device("cpu")


@pytest.fixture
def folder(write_model: Callable[..., Path], tmp_path: Path) -> Path:
    return write_model(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", folds=("0", "1"))


def test_what_torch_saves_passes_the_gate(folder: Path) -> None:
    facts = inspect_model(folder)

    assert (facts.configuration, facts.folds, facts.mirroring_axes) == ("3d_fullres", ("0", "1"), (0, 1, 2))


@pytest.mark.parametrize("network", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("patch", [(16, 16, 16), (16, 16)])
def test_the_network_is_the_one_that_nnunet_builds(
    write_model: Callable[..., Path], tmp_path: Path, network: str, patch: tuple[int, ...]
) -> None:
    model = load_model(write_model(tmp_path / "m", network=network, patch=patch), "all", CPU)
    architecture = model.configuration.configuration["architecture"]
    theirs = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        3,
        deep_supervision=False,
    )
    theirs.load_state_dict(model.parameters[0])
    image = torch.randn(1, 1, *patch)

    with torch.inference_mode():
        assert torch.equal(model.network(image), theirs.eval()(image))


def test_each_fold_has_its_own_weights_and_loading_one_leaves_the_others_alone(folder: Path) -> None:
    model = load_model(folder, "all", CPU)
    name = "encoder.stages.0.0.convs.0.conv.weight"
    first = model.parameters[0][name].clone()

    model.network.load_state_dict(model.parameters[1])

    assert model.folds == ("0", "1")
    assert not torch.equal(model.parameters[0][name], model.parameters[1][name])
    assert torch.equal(model.parameters[0][name], first)


def test_only_the_folds_asked_for_are_loaded(folder: Path) -> None:
    model = load_model(folder, [1], CPU)

    assert (model.folds, len(model.parameters)) == (("1",), 1)


def test_an_unknown_fold_is_refused(folder: Path) -> None:
    with pytest.raises(FailureError, match="no fold 4"):
        load_model(folder, [4], CPU)


def test_weights_of_another_network_are_refused_by_name(write_model: Callable[..., Path], tmp_path: Path) -> None:
    def widen(configuration: dict[str, Any]) -> None:
        configuration["architecture"]["arch_kwargs"]["features_per_stage"] = [6, 8]

    folder = write_model(tmp_path / "m", plans_changes=widen)

    with pytest.raises(ModelError) as caught:
        load_model(folder, "all", CPU)

    assert caught.value.field.startswith("fold_0/checkpoint_final.pth: network_weights.")
    assert "another training" in caught.value.failure.hint


def test_the_network_of_a_model_with_two_channels_takes_two(write_model: Callable[..., Path], tmp_path: Path) -> None:
    dataset = {"channel_names": {"0": "a", "1": "b"}, "labels": {"background": 0, "x": 1, "y": 2}}

    model = load_model(write_model(tmp_path / "m", dataset=dataset), "all", CPU)

    assert model.facts.channel_names == ("a", "b")
    assert model.network(torch.zeros(1, 2, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_a_stage_of_a_cascade_is_refused(write_model: Callable[..., Path], tmp_path: Path) -> None:
    def later_stage(configuration: dict[str, Any]) -> None:
        configuration["previous_stage"] = "3d_lowres"

    folder = write_model(tmp_path / "m", plans_changes=later_stage)

    with pytest.raises(ModelError, match="3d_lowres"):
        load_model(folder, "all", CPU)


class Touch:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._marker}",)


def test_a_checkpoint_that_would_run_a_command_is_refused_and_runs_nothing(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    checkpoint = folder / "fold_1" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    torch.save({**content, "logging": Touch(marker)}, checkpoint)

    with pytest.raises(ModelError, match=r"posix\.system"):
        load_model(folder, "all", CPU)

    assert not marker.exists()


def test_plans_that_would_run_a_command_are_refused_and_run_nothing(
    write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)

    def evil(configuration: dict[str, Any]) -> None:
        configuration["architecture"]["arch_kwargs"]["nonlin"] = "os.system"
        configuration["architecture"]["arch_kwargs"]["nonlin_kwargs"] = None

    folder = write_model(tmp_path / "m", plans_changes=evil)

    with pytest.raises(ModelError, match=r"os\.system"):
        load_model(folder, "all", CPU)

    assert ran == []


def test_a_model_is_unpacked_once_under_its_digest(folder: Path, tmp_path: Path) -> None:
    archive, cache = tmp_path / "m.zip", tmp_path / "deep" / "cache"
    digest = pack_model(folder, archive)

    unpacked = fetch_model(archive, digest, cache)
    archive.unlink()

    assert fetch_model(archive, digest, cache) == unpacked == cache / digest.removeprefix("sha256:")
    assert list(cache.iterdir()) == [unpacked]
    assert load_model(unpacked, "all", CPU).folds == ("0", "1")


def test_an_archive_with_another_digest_is_refused_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    archive, cache = tmp_path / "m.zip", tmp_path / "cache"
    pack_model(folder, archive)

    with pytest.raises(FailureError, match="is not the one with digest"):
        fetch_model(archive, "sha256:" + "0" * 64, cache)

    assert not cache.exists()


def test_an_unsafe_archive_is_never_unpacked(folder: Path, tmp_path: Path) -> None:
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(pickle.dumps(Touch(tmp_path / "it-ran")))
    archive, cache = tmp_path / "m.zip", tmp_path / "cache"
    digest = pack_model(folder, archive)

    with pytest.raises(ModelError):
        fetch_model(archive, digest, cache)

    assert not cache.exists()


def test_several_at_once_get_the_same_folder(folder: Path, tmp_path: Path) -> None:
    archive, cache = tmp_path / "m.zip", tmp_path / "cache"
    digest = pack_model(folder, archive)
    together = threading.Barrier(4)
    found: list[Path] = []

    def fetch() -> None:
        together.wait(timeout=10)
        found.append(fetch_model(archive, digest, cache))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert found == [cache / digest_of(archive).removeprefix("sha256:")] * 4
    assert list(cache.iterdir()) == [found[0]]


def test_a_full_cache_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "m.zip"
    digest = pack_model(folder, archive)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cryomamba_inference.model.extract_model", full)

    with pytest.raises(FailureError) as caught:
        fetch_model(archive, digest, tmp_path / "cache")

    assert caught.value.failure.code is FailureCode.INSUFFICIENT_STORAGE
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert select_device("auto") == select_device("cpu") == CPU
    with pytest.raises(FailureError) as caught:
        select_device("cuda")
    assert caught.value.failure.code is FailureCode.GPU_ERROR
