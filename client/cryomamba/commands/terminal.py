"""What `segment` and `demo` show: progress on stderr, results on stdout."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Table

from cryomamba.models import JobProgress, JobRecord, StatisticsFile
from cryomamba.segmentation import Segmentation

_MINUTE = 60


def results_console() -> Console:
    """The console for results; file names with brackets in them are no markup."""
    return Console(markup=False, highlight=False)


class LiveProgress:
    """Bars for upload, job and downloads; an `Observer`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._pictures = 0

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they are."""
        self._bars.stop()

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text)

    def uploading(self, sent: int, total: int) -> None:
        """Draw the upload."""
        self._draw("Upload", sent, total, f"{_mebibytes(sent)} of {_mebibytes(total)}")

    def working(self, job: JobRecord) -> None:
        """Draw a job that has not begun."""
        waiting = f"queued, number {job.queue_position}" if job.queue_position else job.status
        self._draw("Segment", 0, 100, f"{job.job_id} {waiting}")

    def progress(self, progress: JobProgress) -> None:
        """Draw a job under way."""
        eta = f", {_duration(progress.eta_seconds)} left" if progress.eta_seconds else ""
        self._draw("Segment", progress.percentage, 100, f"{progress.message}{eta}{self._pictures_text()}")

    def preview(self, path: Path, count: int) -> None:
        """Count the pictures."""
        if count == 1:
            self.note(f"Previews arrive in {path}")
        self._pictures = count

    def downloading(self, name: str, received: int, total: int) -> None:
        """Draw a download."""
        self._draw("Download", received, total, name)

    def _pictures_text(self) -> str:
        return f" ({_previews(self._pictures)})" if self._pictures else ""

    def _draw(self, what: str, done: float, total: float, note: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, note=note)
        self._bars.update(self._tasks[what], completed=done, total=total, note=note)


def statistics_table(statistics: StatisticsFile) -> Table:
    """Every label with its voxels, components, volume and surface; columns only for what is known."""
    physical = bool(statistics.physical_volume_nm3)
    table = Table()
    table.add_column("Label", justify="right")
    table.add_column("Name")
    table.add_column("Voxels", justify="right")
    if statistics.component_counts:
        table.add_column("Components", justify="right")
    if physical:
        table.add_column("Volume (nm³)", justify="right")
        table.add_column("Surface (nm²)", justify="right")
    for number, count in sorted(statistics.label_counts.items(), key=lambda item: int(item[0])):
        legend = statistics.labels.get(number)
        row = [number, legend.name if legend else "", f"{count:,}"]
        if statistics.component_counts:
            row.append(_measure(statistics.component_counts, number))
        if physical:
            row += [_measure(statistics.physical_volume_nm3, number), _measure(statistics.surface_area_nm2, number)]
        table.add_row(*row)
    return table


def show_result(console: Console, result: Segmentation) -> None:
    """Print the statistics, what is to be known about them, and where the files are."""
    statistics = result.statistics
    console.print(statistics_table(statistics))
    if statistics.voxel_size_nm is None:
        console.print("Voxel size unknown: no nm³ and nm². Give it with --voxel-size.")
    for warning in statistics.warnings:
        console.print(f"Warning: {warning}")
    console.print(f"{_previews(result.previews)} arrived on the way. Files:")
    for file in result.files:
        console.print(f"  {file}", soft_wrap=True)


def _measure(values: Mapping[str, float] | Mapping[str, int], number: str) -> str:
    return f"{values[number]:,.0f}" if number in values else "-"


def _previews(count: int) -> str:
    return f"{count} preview{'s' * (count != 1)}"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < _MINUTE else f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
