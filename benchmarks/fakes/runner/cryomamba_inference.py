"""Stands in for the runner, found before it by `PYTHONPATH`: a job that makes previews whenever it is told to.

`PREVIEW_ORDERS` names a named pipe; each line that comes from it is a number of previews and the seconds between two of
them. `PREVIEW` is the PNG that all of them show.
"""

import os
import shutil
import sys
import time
from pathlib import Path

from cryomamba_crds.report import Preview, Report
from cryomamba_crds.task import DirectoryStore, Task

EDGE = 128


def main(task: Task, orders: Path, picture: Path) -> None:
    """Obey until the server ends this process."""
    if not isinstance(task.store, DirectoryStore):
        raise TypeError("this runner writes to directories only")
    key = task.output_prefix + "preview-live.png"
    path = Path(task.store.root) / key
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(picture, path)
    sequence = 0
    while True:
        for line in orders.read_text().splitlines():
            count, seconds = line.split()
            due = time.monotonic()
            for _ in range(int(count)):
                sequence += 1
                preview = Preview(sequence=sequence, key=key, scale=4, shape=(EDGE, EDGE, EDGE), slice_idx=64)
                print(Report(preview=preview).model_dump_json(exclude_none=True), flush=True)
                due += float(seconds)
                time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    settings = os.environ
    task = Task.model_validate_json(Path(sys.argv[-1]).read_text())
    main(task, Path(settings["PREVIEW_ORDERS"]), Path(settings["PREVIEW"]))
