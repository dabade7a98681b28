"""One attempt at a job: the five steps in their order, from a task to a manifest."""

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryomamba_crds import keys
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import ModelFacts
from cryomamba_crds.report import Artifact, Manifest, Report, Statistics
from cryomamba_crds.task import Task
from cryomamba_inference.assemble import ResultFile, Results, Wanted, open_results, write_statistics
from cryomamba_inference.checkpoint import Checkpoint, Restored
from cryomamba_inference.engine import InvertedImage, Options, Segmentation, Slab, Tick, Tuning
from cryomamba_inference.engine.segmenting import segment
from cryomamba_inference.engine.surroundings import peak_device_memory, surroundings
from cryomamba_inference.gpu import GpuWatch
from cryomamba_inference.live import LivePreview
from cryomamba_inference.model import Model, cached_model, fetch_model, load_model, select_device
from cryomamba_inference.receipt import Facts, write_receipt
from cryomamba_inference.report import ProgressMeter, Reporter
from cryomamba_inference.storage import Storage
from cryomamba_inference.volume import Volume, check_intensities, open_volume

_log = logging.getLogger(__name__)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _may_be_followed(ending: BaseException) -> bool:
    """Return whether another attempt may come: after an order to stop, which is no error, and after some failures."""
    return ending.failure.retryable if isinstance(ending, FailureError) else not isinstance(ending, MemoryError)


@contextmanager
def _left_for_another_attempt(checkpoint: Checkpoint) -> Iterator[None]:
    """Leave what has gathered if the work within breaks off, however far it is."""
    try:
        yield
    except BaseException as ending:
        if _may_be_followed(ending):
            checkpoint.leave()
        raise


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Runner:
    """Does tasks with the effects that it is given.

    `clock` gives seconds and never jumps; `now` is the time in UTC; `scratch` is an existing empty folder;
    `tuning` is how the network is to be run.
    """

    storage: Storage
    reporter: Reporter
    scratch: Path
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = _utc_now
    tuning: Tuning = field(default_factory=Tuning)

    def run(self, task: Task) -> Manifest:
        """Do one task and return what it resulted in.

        Raises:
            FailureError: the failure to report. What was stored before it is of no consequence, since a job's result
                is what its manifest names, and that is written last.
        """
        meter = ProgressMeter(self.clock)
        times = [self.clock()]
        self.reporter.send(Report(progress=meter.step(1)))
        source = self.storage.fetch(task.input_key, self.scratch)
        digest = _sha256(source)
        volume = open_volume(source, self.scratch)
        folder = self._model(task)

        times.append(self.clock())
        self.reporter.send(Report(progress=meter.step(2)))
        check_intensities(volume)
        preview = self._preview(task, volume)
        preview.show_image()
        model = load_model(folder, task.params.folds, select_device(task.device))
        around = surroundings(model.device, self.tuning)
        checkpoint = self._checkpoint(task, digest, around)

        with _left_for_another_attempt(checkpoint):
            times.append(self.clock())
            with open_results(self._wanted(task, volume, model.facts, preview)) as results:
                restored = checkpoint.restore(results.add) if task.attempt > 1 else Restored()
                events = self._segment(task, (volume, model), preview.plane, restored)
                segmentation = self._follow(events, model, (results, checkpoint), (meter, preview))

            times.append(self.clock())
            self.reporter.send(Report(progress=meter.step(4)))
            files, statistics = self._assemble(task, results, preview)
            facts = Facts(digest, model.folds, segmentation, restored, around, peak_device_memory(model.device))
            files.append(write_receipt(task, facts, [*times, self.clock()], self.scratch))

            self.reporter.send(Report(progress=meter.step(5)))
            manifest = Manifest(
                attempt=task.attempt,
                artifacts=[self._store(task, file) for file in files],
                statistics=statistics,
                seconds_per_tile=segmentation.seconds_per_tile,
                device=segmentation.device,
            )
            self._commit(task, manifest)
        checkpoint.remove()
        self.reporter.send(Report(progress=meter.done()))
        self.reporter.send(Report(result=manifest))
        return manifest

    def _model(self, task: Task) -> Path:
        """Return the unpacked model; one that is in the cache is not asked of the store again."""
        digest, cache = task.model.card.digest, Path(task.model.cache)
        return cached_model(digest, cache) or fetch_model(
            self.storage.fetch(task.model.key, self.scratch), digest, cache
        )

    def _preview(self, task: Task, volume: Volume) -> LivePreview:
        return LivePreview(
            volume,
            {label.id: label.colour for label in task.model.card.labels},
            task.preview,
            prefix=task.output_prefix,
            storage=self.storage,
            reporter=self.reporter,
            clock=self.clock,
        )

    def _wanted(self, task: Task, volume: Volume, facts: ModelFacts, preview: LivePreview) -> Wanted:
        params = task.params
        # Overlapping regions have no background.
        classes = [*([] if facts.regions else [0]), *facts.label_names] if params.save_probabilities else None
        return Wanted(
            volume,
            task.model.card,
            params.voxel_size_nm,
            preview.plane,
            classes,
            self.scratch,
            objects=params.object_table,
        )

    def _segment(
        self, task: Task, what: tuple[Volume, Model], plane: int, restored: Restored
    ) -> Generator[Tick | Slab, None, Segmentation]:
        """Return the engine at work on the planes that are still to be done; `plane` is the one of the preview."""
        params, (volume, model) = task.params, what
        options = Options(
            step_size=params.step_size,
            mirroring=params.mirroring,
            spacing_policy=params.spacing_policy or task.model.card.spacing_policy,
            save_probabilities=params.save_probabilities,
            cpu_fallback=task.model.card.cpu_fallback,
            preview_plane=plane,
            tuning=self.tuning,
        )
        return segment(
            model,
            InvertedImage(volume) if params.invert else volume,
            voxel_size_nm=params.voxel_size_nm or volume.header.voxel_size_nm,
            options=options,
            first=restored.planes,
            rung=restored.rung,
        )

    def _checkpoint(self, task: Task, digest: str, around: dict[str, Any]) -> Checkpoint:
        work = {
            "input": digest,
            "model": task.model.card.digest,
            "spacing_policy": task.params.spacing_policy or task.model.card.spacing_policy,
            "params": task.params.model_dump(mode="json", exclude={"spacing_policy"}),
            **around,
        }
        prefix = keys.checkpoint_prefix(task.job_uid)
        return Checkpoint(self.storage, prefix, work, self.scratch, clock=self.clock, params=task.checkpoint)

    def _follow(
        self,
        events: Generator[Tick | Slab, None, Segmentation],
        model: Model,
        takers: tuple[Results, Checkpoint],
        tellers: tuple[ProgressMeter, LivePreview],
    ) -> Segmentation:
        (results, checkpoint), (meter, preview) = takers, tellers
        gpu = GpuWatch(self.clock, on_gpu=model.device.type == "cuda")
        try:
            while True:
                tick = next(events)
                if isinstance(tick, Slab):
                    results.add(tick.start, tick.labels, tick.probabilities)
                    checkpoint.add(tick.labels, tick.probabilities, tick.rung)
                    continue
                if tick.stage == "infer":
                    self._tell(tick, meter)
                    preview.offer(functools.partial(results.plane_or, tick.partial_labels))
                if stats := gpu.poll():
                    self.reporter.send(Report(gpu=stats))
        except StopIteration as stop:
            segmentation: Segmentation = stop.value
            return segmentation

    def _tell(self, tick: Tick, meter: ProgressMeter) -> None:
        progress = meter.tile(tick.done, tick.total)
        if tick.steps:
            given_up = "; ".join(tick.steps)
            progress = progress.model_copy(update={"message": f"{progress.message} (memory: {given_up})"})
        self.reporter.send(Report(progress=progress))

    def _assemble(self, task: Task, results: Results, preview: LivePreview) -> tuple[list[ResultFile], Statistics]:
        document = results.statistics().model_copy(update={"contrast_inverted": task.params.invert})
        labels, *others = results.files()
        picture = self.scratch / "preview.png"
        picture.write_bytes(preview.render(results.plane))
        files = [labels, write_statistics(document, self.scratch), ResultFile(picture, "image/png"), *others]
        return files, Statistics(**document.model_dump(include=set(Statistics.model_fields)))

    def _store(self, task: Task, file: ResultFile) -> Artifact:
        artifact = Artifact(
            name=file.path.name,
            key=task.output_prefix + file.path.name,
            size=file.path.stat().st_size,
            content_type=file.content_type,
            created_at=self.now(),
        )
        self.storage.put_file(artifact.key, file.path)
        return artifact

    def _commit(self, task: Task, manifest: Manifest) -> None:
        """Make this attempt's result the job's, unless another attempt was first."""
        if not self.storage.put_once(keys.job_manifest(task.job_uid), manifest.model_dump_json().encode()):
            raise FailureError(
                FailureCode.CONFLICT,
                f"Another attempt at job {task.job_id} finished first.",
                hint="Nothing is lost: the job has that attempt's result.",
            )
