"""One attempt at a job, with a tiny model of random weights and a store that is a directory."""

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import cc3d
import mrcfile
import nibabel
import numpy as np
import pytest

from cryomamba_crds import keys
from cryomamba_crds.failures import ExitCode, Failure, FailureCode, FailureError
from cryomamba_crds.model_card import Label, ModelCard
from cryomamba_crds.model_gate import pack_model
from cryomamba_crds.report import Manifest, Report, StatisticsDocument
from cryomamba_crds.task import DirectoryStore, InferenceParams, ModelReference, PreviewParams, Task
from cryomamba_inference.report import LineReporter, ProgressMeter
from cryomamba_inference.storage import DirectoryStorage

LABELS = [Label(id=1, name="membrane", colour="#56b4e9"), Label(id=2, name="particle", colour="#e69f00")]


@pytest.fixture(scope="module")
def model(tmp_path_factory, write_model) -> SimpleNamespace:
    """A model's zip and card."""
    folder = tmp_path_factory.mktemp("model")
    archive = folder / "model.zip"
    result = write_model(folder / "result", mirroring=(0,))
    digest = pack_model(result, archive)
    card = ModelCard(labels=LABELS, spacing_policy="ignore", contrast="dark", digest=digest)
    return SimpleNamespace(archive=archive, card=card, cache=folder / "cache", folder=result)


@pytest.fixture
def volume() -> np.ndarray:
    """[z, y, x]"""
    return np.random.default_rng(1).normal(size=(18, 20, 24)).astype(np.float32)


@pytest.fixture
def task(tmp_path: Path, model, volume) -> Callable[..., Task]:
    """Writes the volume and the model into a store and makes a task for them."""

    def make(data: np.ndarray = volume, voxel_size: float = 13.48, attempt: int = 1, **params) -> Task:
        store = tmp_path / "store"
        source = store / keys.file_volume("f")
        source.parent.mkdir(parents=True, exist_ok=True)
        with mrcfile.new(source, overwrite=True) as mrc, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mrcfile's, about the NaN that a test is about
            mrc.set_data(data)
            mrc.voxel_size = voxel_size
        archive = store / keys.model_archive("tiny", model.card.digest)
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.write_bytes(model.archive.read_bytes())
        return Task(
            job_id="job_aaaaaaaaaaaa",
            job_uid="uid",
            attempt=attempt,
            input_key=keys.file_volume("f"),
            model=ModelReference(
                name="tiny", key=keys.model_archive("tiny", model.card.digest), card=model.card, cache=str(model.cache)
            ),
            params=InferenceParams(**params),
            preview=PreviewParams(interval_seconds=0.5, downsample_factor=2),
            store=DirectoryStore(root=str(store)),
            output_prefix=keys.attempt_prefix("uid", attempt),
            device="cpu",
        )

    return make


@pytest.fixture
def run(tmp_path: Path):
    """Runs a task in this process; returns its manifest, its reports and the store."""
    from cryomamba_inference.run import Runner

    def go(task: Task) -> SimpleNamespace:
        lines = StringIO()
        scratch = tmp_path / f"scratch{task.attempt}"
        scratch.mkdir(exist_ok=True)
        store = Path(task.store.root)
        manifest = Runner(DirectoryStorage(store), LineReporter(lines), scratch).run(task)
        reports = [Report.model_validate_json(line) for line in lines.getvalue().splitlines()]
        return SimpleNamespace(manifest=manifest, reports=reports, store=store, prefix=store / task.output_prefix)

    return go


def test_a_task_becomes_labels_statistics_and_a_picture(task, run, volume):
    done = run(task())

    assert [artifact.name for artifact in done.manifest.artifacts] == [
        "segmentation.mrc",
        "statistics.json",
        "preview.png",
        "receipt.json",
    ]
    with mrcfile.open(done.prefix / "segmentation.mrc") as mrc:
        labels, voxel_size = mrc.data.copy(), mrc.voxel_size
    assert labels.shape == volume.shape
    assert labels.dtype == np.int8
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert voxel_size.x == pytest.approx(13.48)
    for artifact in done.manifest.artifacts:
        assert (done.store / artifact.key).stat().st_size == artifact.size
    statistics = StatisticsDocument.model_validate_json((done.prefix / "statistics.json").read_text())
    assert statistics.label_counts == {str(label): int((labels == label).sum()) for label in (1, 2)}
    assert statistics.physical_volume_nm3["1"] == pytest.approx(statistics.label_counts["1"] * 1.348**3)
    assert statistics.voxel_size_source == "header"
    assert statistics.labels["2"].name == "particle"
    for label in (1, 2):
        box = statistics.bounding_boxes[str(label)]
        places = np.argwhere(labels == label)[:, ::-1]
        assert (box.first, box.last) == (tuple(places.min(axis=0)), tuple(places.max(axis=0)))
        assert statistics.centroids_voxels[str(label)] == pytest.approx(places.mean(axis=0))
        assert statistics.centroids_nm[str(label)] == pytest.approx(places.mean(axis=0) * 1.348)
        assert statistics.component_counts[str(label)] == cc3d.connected_components(labels == label).max()
    assert Manifest.model_validate_json((done.store / keys.job_manifest("uid")).read_text()) == done.manifest


def test_progress_is_told_after_every_tile_and_never_falls(task, run):
    progress = [report.progress for report in run(task()).reports if report.progress]

    percentages = [one.percentage for one in progress]
    assert percentages == sorted(percentages)
    assert percentages[-1] == 100
    assert sorted({one.current_step for one in progress}) == [1, 2, 3, 4, 5]
    tiles = [one.message for one in progress if one.current_step == 3]
    # 18, 20, 24 voxels under a patch of 16 at steps of 8: 2 tiles along each axis.
    assert tiles == [f"Processing tile {number}/8" for number in range(1, 9)]


def test_previews_are_stored_before_they_are_told(task, run):
    done = run(task())

    previews = [report.preview for report in done.reports if report.preview]
    assert [preview.sequence for preview in previews] == list(range(1, len(previews) + 1))
    assert previews[0].shape == (12, 10, 9)
    assert previews[0].slice_idx == 4
    assert (done.store / previews[0].key).read_bytes().startswith(b"\x89PNG")


def test_probabilities_are_an_artifact_of_their_own_when_asked_for(task, run, volume):
    done = run(task(save_probabilities=True))

    with np.load(done.prefix / "probabilities.npz") as archive:
        classes = {name: archive[name] for name in archive.files}
    assert sorted(classes) == ["0", "1", "2"]
    assert all(one.dtype == np.float16 and one.shape == volume.shape for one in classes.values())
    assert sum(one.astype(np.float64) for one in classes.values()) == pytest.approx(1, abs=2e-3)
    with mrcfile.open(done.prefix / "segmentation.mrc") as mrc:
        likeliest = np.argmax([classes["0"], classes["1"], classes["2"]], axis=0)
        assert (likeliest == mrc.data).mean() > 0.999  # rounding to float16 makes ties


def test_probabilities_of_overlapping_regions_have_no_background(task, model, tmp_path, volume):
    from cryomamba_inference.assemble import Wanted, open_results
    from cryomamba_inference.volume import open_volume

    written = Path(task().store.root) / keys.file_volume("f")
    wanted = Wanted(open_volume(written, tmp_path), model.card, None, 0, [2, 1], tmp_path)
    probabilities = np.random.default_rng(3).random((2, *volume.shape)).astype(np.float16)
    with open_results(wanted) as results:
        for start in (0, 7):
            stop = 7 if start == 0 else len(volume)
            results.add(start, np.zeros((stop - start, 20, 24), np.uint8), probabilities[:, start:stop])

    with np.load(results.files()[1].path) as archive:
        assert archive.files == ["2", "1"]
        assert np.array_equal(archive["2"], probabilities[0])
        assert np.array_equal(archive["1"], probabilities[1])
    assert not list(tmp_path.glob("probabilities-*"))


def test_a_table_of_objects_is_an_artifact_when_asked_for(task, run):
    done = run(task(object_table=True))

    (artifact,) = [artifact for artifact in done.manifest.artifacts if artifact.name == "objects.csv"]
    assert artifact.content_type == "text/csv"
    with (done.store / artifact.key).open(newline="") as file:
        rows = list(csv.DictReader(file))
    statistics = StatisticsDocument.model_validate_json((done.prefix / "statistics.json").read_text())
    for label, name in (("1", "membrane"), ("2", "particle")):
        own = [row for row in rows if row["label"] == label]
        assert {row["name"] for row in own} == {name}
        assert [int(row["component"]) for row in own] == list(range(1, statistics.component_counts[label] + 1))
        assert sum(int(row["volume_voxels"]) for row in own) == statistics.label_counts[label]
        volume_nm3 = sum(float(row["volume_nm3"]) for row in own)
        assert volume_nm3 == pytest.approx(statistics.physical_volume_nm3[label])


def test_the_receipt_says_what_the_result_was_made_from(task, run):
    todo = task(step_size=0.75, voxel_size_nm=(1.0, 2.0, 3.0))
    done = run(todo)

    receipt = json.loads((done.prefix / "receipt.json").read_text())
    source = (done.store / todo.input_key).read_bytes()
    assert (receipt["job_id"], receipt["attempt"], receipt["input_key"]) == (todo.job_id, 1, todo.input_key)
    assert receipt["input_sha256"] == hashlib.sha256(source).hexdigest()
    assert (receipt["model"], receipt["model_digest"]) == ("tiny", todo.model.card.digest)
    assert InferenceParams.model_validate(receipt["params"]) == todo.params
    assert receipt["params"].keys() == InferenceParams.model_fields.keys()
    assert receipt["spacing_policy"] == "ignore"
    assert receipt["folds"] == ["0"]
    assert receipt["engine"] == "streaming"
    assert receipt["tiles"] == 8
    assert receipt["passes_at_once"] >= 1
    assert receipt["resumed_from_plane"] == 0
    assert receipt["started_over_because"] == []
    assert receipt["given_up_for_memory"] == []
    assert set(receipt["surroundings"]) == {"versions", "device", "processor", "threads", "tuning"}
    assert set(receipt["surroundings"]["versions"]) == {"cryomamba", "nnunetv2", "numpy", "torch"}
    assert receipt["surroundings"]["tuning"] == {"compiled": False, "channels_last": False}
    assert receipt["surroundings"]["device"] == "cpu"
    assert list(receipt["seconds"]) == ["Fetching input", "Preprocessing", "Inferring", "Assembling"]
    assert all(seconds >= 0 for seconds in receipt["seconds"].values())
    assert 1e8 < receipt["peak_memory_bytes"] < 1e11
    assert receipt["peak_device_memory_bytes"] is None


def test_the_page_about_receipts_has_every_field_and_no_other():
    from cryomamba_inference.receipt import Receipt

    page = (Path(__file__).parents[3] / "docs" / "receipt.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]

    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(Receipt.model_fields)


def test_the_receipt_of_a_gpu_has_the_memory_that_was_held_there(monkeypatch):
    import torch

    from cryomamba_inference.engine.surroundings import peak_device_memory

    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: {"cuda:0": 1 << 30}[str(device)])

    assert peak_device_memory(torch.device("cuda", 0)) == 1 << 30
    assert peak_device_memory(torch.device("cpu")) is None


def test_a_process_is_not_charged_for_what_its_parent_had():
    ours = "from cryomamba_inference.engine.memory import peak_resident_memory; print(peak_resident_memory())"
    parents = f"import subprocess, sys; big = b'x' * (300 << 20); subprocess.run([sys.executable, '-c', {ours!r}])"

    peak = subprocess.run([sys.executable, "-c", parents], capture_output=True, check=True, timeout=100).stdout

    assert 1 << 20 < int(peak) < 200 << 20


def test_what_is_given_up_for_memory_is_in_the_progress_and_in_the_receipt(task, run, monkeypatch):
    from cryomamba_inference.engine.network import TileNetwork

    forward = TileNetwork._forward

    def narrow(network, tiles):
        if len(tiles) > 1:
            raise MemoryError
        return forward(network, tiles)

    monkeypatch.setattr(TileNetwork, "_forward", narrow)

    done = run(task())

    receipt = json.loads((done.prefix / "receipt.json").read_text())
    assert receipt["given_up_for_memory"] == ["1 instead of 2 passes at once"]
    assert receipt["passes_at_once"] == 1
    messages = [report.progress.message for report in done.reports if report.progress]
    assert any(message.endswith("(memory: 1 instead of 2 passes at once)") for message in messages)


def test_mirroring_and_inversion_change_what_the_network_sees(task, run):
    def labels(**params) -> np.ndarray:
        done = run(task(attempt=labels.attempt, **params))
        labels.attempt += 1
        (done.store / keys.job_manifest("uid")).unlink()
        with mrcfile.open(done.prefix / "segmentation.mrc") as mrc:
            return mrc.data.copy()

    labels.attempt = 1
    plain, again, inverted, single = labels(), labels(), labels(invert=True), labels(mirroring=False)

    assert np.array_equal(plain, again)
    assert not np.array_equal(plain, inverted)
    assert not np.array_equal(plain, single)


@pytest.fixture
def two_channels(task, write_model, tmp_path) -> SimpleNamespace:
    """A task for a model of two channels, whose input is a 4D NIfTI file; the model's folder, and the voxels."""
    names = {"background": 0, "membrane": 1, "particle": 2}
    folder = write_model(
        tmp_path / "two", dataset={"channel_names": {"0": "even", "1": "odd"}, "labels": names}, mirroring=(0,)
    )
    data = np.random.default_rng(4).normal(size=(2, 18, 20, 24)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(data.T, np.diag([13.48, 13.48, 13.48, 1])), tmp_path / "input.nii.gz")
    plain = task()
    (Path(plain.store.root) / plain.input_key).write_bytes((tmp_path / "input.nii.gz").read_bytes())
    return SimpleNamespace(plain=plain, task=with_model(plain, folder), folder=folder, data=data)


def test_volumes_of_one_file_are_the_channels_of_a_model(two_channels, run):
    from torch import device

    from cryomamba_inference.model import load_model
    from support.nnunet_reference import nnunet_predictor

    def labels(todo: Task) -> np.ndarray:
        result = nibabel.load(run(todo).prefix / "segmentation.nii.gz")
        assert result.shape == (24, 20, 18)
        assert result.header.get_zooms() == pytest.approx((13.48, 13.48, 13.48))
        return np.asanyarray(result.dataobj).T

    todo, data = two_channels.task, two_channels.data
    inverted = todo.model_copy(
        update={
            "job_uid": "other",
            "params": InferenceParams(invert=True),
            "output_prefix": keys.attempt_prefix("other", 1),
        }
    )
    predictor = nnunet_predictor(load_model(two_channels.folder, "all", device("cpu")), 0.5, mirroring=True)
    properties = {"spacing": [2.0, 1.0, 1.5]}

    # nnU-Net sums in float16: near-ties may differ.
    found = labels(todo)
    assert np.mean(found != predictor.predict_single_npy_array(data, properties)) < 0.01
    assert np.mean(labels(inverted) != predictor.predict_single_npy_array(-data, properties)) < 0.01
    # The second channel counts.
    first_alone = np.stack([data[0], -data[1]])
    assert np.mean(found != predictor.predict_single_npy_array(first_alone, properties)) > 0.05


def test_a_file_of_other_channels_than_the_models_is_refused(two_channels, run):
    with pytest.raises(FailureError, match=r"it has 2 channels and the model takes one channel \(density\)") as refused:
        run(two_channels.plain)

    assert refused.value.failure.code is FailureCode.VALIDATION_ERROR
    assert "file of its own" in refused.value.failure.hint


def test_an_unknown_voxel_size_leaves_the_physical_maps_empty(task, run):
    statistics = run(task(voxel_size=1.0)).manifest.statistics

    assert statistics.label_counts
    assert statistics.physical_volume_nm3 == {}
    assert statistics.surface_area_nm2 == {}


def test_a_voxel_size_of_the_users_overrides_the_headers(task, run):
    done = run(task(voxel_size_nm=(1.0, 2.0, 3.0)))

    document = json.loads((done.prefix / "statistics.json").read_text())
    assert document["physical_volume_nm3"]["1"] == document["label_counts"]["1"] * 6.0
    assert document["voxel_size_source"] == "override"


def test_the_attempt_that_comes_second_changes_nothing(task, run):
    first = run(task())

    with pytest.raises(FailureError, match="finished first"):
        run(task(attempt=2))

    assert Manifest.model_validate_json((first.store / keys.job_manifest("uid")).read_text()).attempt == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data.__setitem__((3, 4, 5), np.nan), "NaN"),
        (lambda data: data.__setitem__((3, 4, 5), np.inf), "infinite"),
        (lambda data: data.fill(0), "zero"),
        (lambda data: data.fill(7), "7"),
    ],
)
def test_a_volume_that_cannot_be_segmented_fails_by_name_and_not_as_background(task, run, volume, spoil, words):
    spoil(volume)

    with pytest.raises(FailureError) as failed:
        run(task(volume))

    assert failed.value.failure.code is FailureCode.VALIDATION_ERROR
    assert words in failed.value.failure.message
    assert failed.value.failure.hint


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(np.ones((1, 1, 1), np.float32), id="one voxel"),
        pytest.param(np.zeros((1, 20, 24), np.float32), id="one plane of zeros"),
    ],
)
def test_a_volume_without_any_contrast_fails_by_name_however_small(task, run, data):
    with pytest.raises(FailureError, match="Every voxel is") as failed:
        run(task(data))

    assert failed.value.failure.code is FailureCode.VALIDATION_ERROR
    assert failed.value.failure.hint


def thin(axis: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=[1 if number == axis else 20 for number in range(3)]).astype(np.float32)


def extremes(dtype: type) -> np.ndarray:
    bounds = np.iinfo(dtype)
    return np.random.default_rng(2).choice(np.array([bounds.min, -1 % bounds.max, bounds.max], dtype), (18, 20, 24))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(thin(0), id="one voxel along Z"),
        pytest.param(thin(1), id="one voxel along Y"),
        pytest.param(thin(2), id="one voxel along X"),
        pytest.param(extremes(np.int16), id="the extremes of 16 bits with a sign"),
        pytest.param(extremes(np.uint16), id="the extremes of 16 bits without one"),
    ],
)
def test_a_volume_at_the_edge_of_what_there_is_gets_nnunets_labels(task, run, model, data):
    from torch import device

    from cryomamba_inference.model import load_model
    from support.nnunet_reference import nnunet_predictor

    done = run(task(data))

    predictor = nnunet_predictor(load_model(model.folder, "all", device("cpu")), 0.5, mirroring=True)
    expected = predictor.predict_single_npy_array(data[None].astype(np.float32), {"spacing": [2.0, 1.0, 1.5]})
    with mrcfile.open(done.prefix / "segmentation.mrc") as mrc:
        found = mrc.data.reshape(data.shape)
    # nnU-Net sums in float16: near-ties may differ.
    assert np.mean(found != expected) < 0.01
    assert len(np.unique(expected)) > 1


class Touch:
    """What a pickle holds that runs a command where it is loaded."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self._marker}",)


def of_another_architecture(folder: Path, _: Path) -> None:
    change_plans(folder, lambda entry: entry["architecture"]["arch_kwargs"].update(features_per_stage=[6, 8]))


def of_a_cascade(folder: Path, _: Path) -> None:
    change_plans(folder, lambda entry: entry.update(previous_stage="3d_lowres"))


def that_runs_code_from_its_plans(folder: Path, marker: Path) -> None:
    runs = {"nonlin": "os.system", "nonlin_kwargs": {"command": f"touch {marker}"}}
    change_plans(folder, lambda entry: entry["architecture"]["arch_kwargs"].update(runs))


def that_runs_code_from_its_pickle(folder: Path, marker: Path) -> None:
    import torch

    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    torch.save({**content, "logging": Touch(marker)}, checkpoint)


def of_another_fold(folder: Path, _: Path) -> None:
    (folder / "fold_0").rename(folder / "fold_3")


def change_plans(folder: Path, change: Callable[[dict], None]) -> None:
    plans = json.loads((folder / "plans.json").read_text())
    change(plans["configurations"]["3d_fullres"])
    (folder / "plans.json").write_text(json.dumps(plans))


@pytest.mark.parametrize(
    ("spoil", "words", "hint"),
    [
        (of_another_fold, "the model has no fold 0", "The model has folds 3"),
        (of_another_architecture, "has shape", "another training"),
        (of_a_cascade, "needs the result of '3d_lowres'", "3d_fullres or 3d_lowres"),
        (that_runs_code_from_its_plans, "os.system", ""),
        (that_runs_code_from_its_pickle, "posix.system", ""),
    ],
)
def test_a_model_that_cannot_be_used_fails_by_name_and_runs_no_code(
    task, run, write_model, tmp_path, spoil, words, hint
):
    folder, marker = write_model(tmp_path / "bad"), tmp_path / "it-ran"
    spoil(folder, marker)

    with pytest.raises(FailureError) as failed:
        run(with_model(task(folds=[0]), folder))

    failure = failed.value.failure
    assert failure.code is FailureCode.VALIDATION_ERROR
    assert words in failure.message
    assert failure.hint
    assert hint in failure.hint
    assert not marker.exists()


def with_model(plain: Task, folder: Path) -> Task:
    """Return a task for another model, which is put into its store."""
    archive = folder.with_suffix(".zip")
    digest = pack_model(folder, archive)
    key = keys.model_archive("other", digest)
    stored = Path(plain.store.root) / key
    stored.parent.mkdir(parents=True)
    stored.write_bytes(archive.read_bytes())
    card = plain.model.card.model_copy(update={"digest": digest})
    reference = ModelReference(name="other", key=key, card=card, cache=plain.model.cache)
    return plain.model_copy(update={"model": reference})


def start(task: Task, *options: str, **kwargs) -> subprocess.Popen[bytes]:
    path = Path(task.store.root) / "task.json"
    path.write_text(task.model_dump_json())
    command = [sys.executable, "-m", "cryomamba_inference", *options, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


def test_the_process_says_its_failure_as_its_last_word(task, volume):
    volume[0, 0, 0] = np.nan

    process = start(task(volume))
    out, _ = process.communicate(timeout=100)

    assert process.returncode == ExitCode.FAILED
    *reports, last = out.decode().splitlines()
    assert [Report.model_validate_json(line) for line in reports]
    assert Failure.model_validate_json(last).code is FailureCode.VALIDATION_ERROR


def test_sigterm_ends_the_process_with_a_retryable_code(task, volume):
    process = start(task(np.tile(volume, (4, 4, 4))))
    assert process.stdout
    process.stdout.readline()  # it is at work

    process.terminate()
    out, _ = process.communicate(timeout=100)

    assert process.returncode == ExitCode.RETRYABLE
    assert Failure.model_validate_json(out.decode().splitlines()[-1]).retryable


def test_the_process_does_not_outlive_the_one_that_started_it(task, volume):
    process = start(task(np.tile(volume, (4, 4, 4))), "--stop-on-stdin-eof", stdin=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()  # it is at work

    process.communicate(timeout=100)  # closes its stdin

    assert process.returncode == ExitCode.RETRYABLE


def test_a_task_that_is_none_is_told(tmp_path):
    path = tmp_path / "task.json"
    path.write_text("{}")
    command = [sys.executable, "-m", "cryomamba_inference", str(path)]

    done = subprocess.run(command, capture_output=True, timeout=100, check=False)

    assert done.returncode == ExitCode.FAILED
    assert "job_id" in Failure.model_validate_json(done.stdout.decode().splitlines()[-1]).message


def test_the_store_may_be_told_the_same_once_only(tmp_path):
    storage = DirectoryStorage(tmp_path)

    assert storage.put_once("jobs/u/manifest.json", b"first")
    assert not storage.put_once("jobs/u/manifest.json", b"second")
    assert storage.fetch("jobs/u/manifest.json", tmp_path).read_bytes() == b"first"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["manifest.json"]


def test_an_object_that_is_missing_is_told(tmp_path):
    with pytest.raises(FailureError, match="files/f/volume is not in the store"):
        DirectoryStorage(tmp_path).fetch("files/f/volume", tmp_path)


def test_the_remaining_time_follows_the_pace_of_the_tiles():
    now = iter([10.0, 12.0, 14.0])
    meter = ProgressMeter(lambda: next(now))

    first, second, third = (meter.tile(done, 11) for done in (1, 2, 3))

    assert first.eta_seconds is None
    # 2 s a tile and 9 tiles to go are 18 s; inference ends at 92 percent.
    assert second.eta_seconds == 20
    assert third.eta_seconds == 18


def test_a_models_zip_that_was_changed_is_refused(task, run):
    changed = task()
    archive = Path(changed.store.root) / changed.model.key
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr("more.txt", "x")
    fresh_cache = changed.model.model_copy(update={"cache": str(Path(changed.store.root) / "cache")})

    with pytest.raises(FailureError, match="digest"):
        run(changed.model_copy(update={"model": fresh_cache}))
