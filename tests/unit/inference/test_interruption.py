"""Runners that are ended at random tiles of their work, as real processes; others go on with it."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest

from cryomamba_crds import keys
from cryomamba_crds.failures import ExitCode
from cryomamba_crds.model_card import Label, ModelCard
from cryomamba_crds.model_gate import pack_model
from cryomamba_crds.report import Manifest, Report
from cryomamba_crds.task import CheckpointParams, DirectoryStore, InferenceParams, ModelReference, Task
from cryomamba_inference.report import LineReporter
from cryomamba_inference.storage import DirectoryStorage
from support.warm_runners import ONE_THREAD, WarmRunners, warm_runners

AT_EVERY_SLAB = CheckpointParams(interval_seconds=0, share_of_time=1)
LABELS = [Label(id=1, name="membrane", colour="#56b4e9"), Label(id=2, name="particle", colour="#e69f00")]


@pytest.fixture(scope="module")
def runners() -> Iterator[WarmRunners]:
    with warm_runners() as runners:
        yield runners


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> Callable[..., Task]:
    """Makes tasks for a model and a volume of 8 rows of 4 tiles, which are in a store."""
    folder = tmp_path_factory.mktemp("store")
    packed = folder / "model.zip"
    digest = pack_model(write_model(folder / "result", mirroring=(0,)), packed)
    archive, source = folder / keys.model_archive("tiny", digest), folder / keys.file_volume("f")
    for path in (archive, source):
        path.parent.mkdir(parents=True)
    packed.rename(archive)
    with mrcfile.new(source) as mrc:
        mrc.set_data(np.random.default_rng(2).normal(size=(70, 20, 24)).astype(np.float32))
        mrc.voxel_size = 13.48
    card = ModelCard(labels=LABELS, spacing_policy="ignore", contrast="dark", digest=digest)

    def make(uid: str, attempt: int, checkpoint: CheckpointParams, *, probabilities: bool) -> Task:
        key = keys.model_archive("tiny", digest)
        return Task(
            job_id="job_aaaaaaaaaaaa",
            job_uid=uid,
            attempt=attempt,
            input_key=keys.file_volume("f"),
            model=ModelReference(name="tiny", key=key, card=card, cache=str(folder / "cache")),
            params=InferenceParams(save_probabilities=probabilities, object_table=True),
            checkpoint=checkpoint,
            store=DirectoryStore(root=str(folder)),
            output_prefix=keys.attempt_prefix(uid, attempt),
            device="cpu",
        )

    return make


def written(task: Task) -> list[str]:
    """Return the arguments of a runner, as a workstation's server gives them."""
    path = Path(task.store.root) / f"{task.job_uid}-{task.attempt}.json"
    path.write_text(task.model_dump_json())
    return ["--stop-on-stdin-eof", str(path)]


def results(task: Task) -> SimpleNamespace:
    """Return what the job has, all but what tells of the attempt itself."""
    store = Path(task.store.root)
    manifest = Manifest.model_validate_json((store / keys.job_manifest(task.job_uid)).read_text())
    files = {artifact.name: (store / artifact.key).read_bytes() for artifact in manifest.artifacts}
    return SimpleNamespace(receipt=json.loads(files.pop("receipt.json")), files=files)


@pytest.fixture(scope="module")
def undisturbed(task: Callable[..., Task], runners: WarmRunners) -> dict[bool, dict[str, bytes]]:
    """What runners make that nobody ends, without and with probabilities; the first one is no fork."""
    plain, probable = (task(f"undisturbed-{wanted}", 1, CheckpointParams(), probabilities=wanted) for wanted in (0, 1))
    command = [sys.executable, "-m", "cryomamba_inference", *written(plain)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ | ONE_THREAD
    ) as process:
        log = Path(probable.store.root) / "undisturbed.log"
        assert run(runners, probable, log, None) == ExitCode.SUCCEEDED, log.read_text()
        assert process.wait(100) == ExitCode.SUCCEEDED
    return {False: results(plain).files, True: results(probable).files}


def run(runners: WarmRunners, task: Task, log: Path, end: tuple[signal.Signals, float] | None) -> int:
    """Run an attempt to its end, or end it.

    Args:
        end: By which signal, and after how much of the tiles that it has to do, 0 for the first one and 1 for the last.
    """
    runner = runners.start(*written(task), log=log)
    last = None
    for line in runner.lines():
        report = Report.model_validate_json(line)
        tile = re.match(r"Processing tile (\d+)/(\d+)", report.progress.message if report.progress else "")
        if end is None or tile is None:
            continue
        done, total = (int(number) for number in tile.groups())
        last = last or done + round(end[1] * (total - done))
        if done >= last:
            runner.send_signal(end[0])
            break
    return runner.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_runner_that_is_ended_at_any_tile_is_followed_by_one_that_ends_with_the_same_bytes(
    runners, task, undisturbed, tmp_path, number
):
    rng = np.random.default_rng(number)
    # Nobody knows of a kill before it comes; an order to stop leaves the time to leave all that is done.
    checkpoint = CheckpointParams() if number == signal.SIGTERM else AT_EVERY_SLAB
    began = []

    for job in range(10):
        probabilities = job % 3 == 0
        interruptions = 2 if job % 4 == 0 else 1
        for attempt in range(1, interruptions + 2):
            todo = task(f"{number.name}-{job}", attempt, checkpoint, probabilities=probabilities)
            end = (number, float(rng.random())) if attempt <= interruptions else None
            code = run(runners, todo, tmp_path / "log", end)
            expected = {signal.SIGTERM: ExitCode.RETRYABLE, signal.SIGKILL: -signal.SIGKILL}[number]
            assert code == (expected if end else ExitCode.SUCCEEDED), (tmp_path / "log").read_text()
        done = results(todo)
        assert done.files == undisturbed[probabilities]
        began.append(done.receipt["resumed_from_plane"])
        left = list((Path(todo.store.root) / keys.checkpoint_prefix(todo.job_uid)).glob("*"))
        # A kill may come when a part is there and the index does not name it yet; that is the sweep's.
        assert len(left) <= (interruptions if number == signal.SIGKILL else 0), left
        assert not any(path.name == "index.json" for path in left)

    assert sum(plane > 0 for plane in began) >= 7, began
    assert len(set(began)) >= 4, "they began at different planes"


class Stop(BaseException):
    """An order to stop, as SIGTERM gives it."""


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SimpleNamespace]]:
    """Does attempts in this process, on one thread; something may happen before a pass of the network."""
    import torch

    from cryomamba_inference.engine.network import TileNetwork
    from cryomamba_inference.run import Runner

    threads, forward = torch.get_num_threads(), TileNetwork._forward
    torch.set_num_threads(1)

    def go(todo: Task, before_pass: Callable[[int, int], None] = lambda *_: None, **effects) -> SimpleNamespace:
        passes = itertools.count()

        def watched(network, tiles):
            before_pass(next(passes), len(tiles))
            return forward(network, tiles)

        monkeypatch.setattr(TileNetwork, "_forward", watched)
        scratch = tmp_path / f"{todo.job_uid}-{todo.attempt}"
        scratch.mkdir()
        Runner(DirectoryStorage(Path(todo.store.root)), LineReporter(StringIO()), scratch, **effects).run(todo)
        return results(todo)

    yield go
    torch.set_num_threads(threads)


def stop_before(last: int) -> Callable[[int, int], None]:
    """Return what stops the work before a pass of the network."""

    def before(number: int, _: int) -> None:
        if number == last:
            raise Stop

    return before


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"threads": 7}, "threads was 1 and is 7"),
        ({"device": "NVIDIA H200"}, 'device was "cpu" and is "NVIDIA H200"'),
        ({"versions": {"torch": "3.0"}}, 'and is "3.0"'),
    ],
)
def test_an_attempt_in_other_surroundings_starts_over_and_says_why(
    task, attempt, undisturbed, monkeypatch, caplog, changed, told
):
    from cryomamba_inference.engine.surroundings import surroundings

    first, second = (
        task(f"elsewhere-{told}".replace('"', ""), number, AT_EVERY_SLAB, probabilities=False) for number in (1, 2)
    )
    with pytest.raises(Stop):
        attempt(first, stop_before(25))
    monkeypatch.setattr("cryomamba_inference.run.surroundings", lambda *how: surroundings(*how) | changed)

    done = attempt(second)

    assert done.files == undisturbed[False]
    assert done.receipt["resumed_from_plane"] == 0
    assert told in " ".join(done.receipt["started_over_because"])
    assert "starting over" in caplog.text
    assert told in caplog.text


def test_the_input_is_known_by_what_is_in_it(task, attempt, caplog):
    caplog.set_level("INFO")
    first = task("digest", 1, AT_EVERY_SLAB, probabilities=False)
    store = Path(first.store.root)
    source, copy = store / first.input_key, store / keys.file_volume("copy")
    copy.parent.mkdir()
    copy.write_bytes(source.read_bytes())
    with pytest.raises(Stop):
        attempt(first, stop_before(25))
    second, third = (
        task("digest", number, AT_EVERY_SLAB, probabilities=False).model_copy(
            update={"input_key": keys.file_volume("copy")}
        )
        for number in (2, 3)
    )
    with pytest.raises(Stop):
        attempt(second, stop_before(5))
    assert re.search(r"going on from plane [1-9]", caplog.text), "the same bytes under another key are the same input"
    copy.write_bytes(source.read_bytes()[:-4] + b"\0\0\0\0")

    done = attempt(third)

    assert done.receipt["resumed_from_plane"] == 0
    assert [reason.split()[0] for reason in done.receipt["started_over_because"]] == ["input"]


def test_an_attempt_after_a_lack_of_memory_goes_on_as_the_one_before_would_have(task, attempt, monkeypatch):
    import torch

    from cryomamba_inference.engine.fitting import best_setting

    by_fours = "cryomamba_inference.engine.segmenting.best_setting"
    monkeypatch.setattr(by_fours, lambda *how: replace(best_setting(*how), batch=4))

    def scarce(number: int, passes: int) -> None:
        if number >= 6 and passes > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def job(uid: str, number: int) -> Task:
        return task(uid, number, AT_EVERY_SLAB, probabilities=True)

    plenty = attempt(job("plenty", 1))
    little = attempt(job("little", 1), scarce)
    assert plenty.files != little.files, "what is given up is seen in the last bits"
    outcomes = []
    for last in (9, 20, 30, 40, 50):
        with pytest.raises(Stop):
            attempt(job(f"stopped-{last}", 1), lambda *now, last=last: scarce(*now) or stop_before(last)(*now))
        done = attempt(job(f"stopped-{last}", 2))
        assert done.receipt["resumed_from_plane"] > 0
        # Where nothing was done yet with less memory, there is nothing that has to be gone on with.
        reached = bool(done.receipt["given_up_for_memory"])
        outcomes.append(reached)
        expected = little if reached else plenty
        assert done.files == expected.files
        for name in ("given_up_for_memory", "passes_at_once"):
            assert done.receipt[name] == expected.receipt[name]

    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}


def test_an_attempt_that_is_stopped_while_results_are_stored_leaves_nothing_to_be_done_again(
    task, attempt, undisturbed, monkeypatch
):
    first, second = (task("stored", number, CheckpointParams(), probabilities=True) for number in (1, 2))
    put_file = DirectoryStorage.put_file

    def stopping(storage: DirectoryStorage, key: str, source: Path) -> None:
        if key.endswith("statistics.json"):
            raise Stop
        put_file(storage, key, source)

    with monkeypatch.context() as patched:
        patched.setattr(DirectoryStorage, "put_file", stopping)
        with pytest.raises(Stop):
            attempt(first)

    done = attempt(second, lambda *_: pytest.fail("no tile is to be done again"))

    assert done.receipt["resumed_from_plane"] == 70
    assert done.files == undisturbed[True]


def test_previews_after_a_resumption_show_what_was_done_before(task, attempt, monkeypatch):
    import cryomamba_inference.live

    render, shown = cryomamba_inference.live.render_preview, []

    def seen(plane, labels, *rest):
        shown.append(labels)
        return render(plane, labels, *rest)

    first, second = (task("preview", number, AT_EVERY_SLAB, probabilities=False) for number in (1, 2))
    with pytest.raises(Stop):
        attempt(first, stop_before(28))
    monkeypatch.setattr(cryomamba_inference.live, "render_preview", seen)

    done = attempt(second, clock=itertools.count(step=100).__next__)

    image, *pictures, final = shown
    assert done.receipt["resumed_from_plane"] > 35
    assert image is None
    assert pictures
    assert all(np.array_equal(picture, final) for picture in pictures)
