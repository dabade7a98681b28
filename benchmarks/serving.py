"""Downloads, lists of jobs, and the work for each request (run with `python -P`, as `make bench` does).

The server as its users start it, with tokens, limits and logs, and 10,000 jobs; the peer's routes are in
`peers/serving.py`; each in a process of its own, in turn. Prints lines ``name ours peer ratio``, where the ratio is the
median of the rounds':

- ``download-ranges-mib-a-second``: 256 MiB by signed URL in ranges of 8 MiB; the peer is Starlette's `FileResponse`.
- ``download-whole-mib-a-second``: the same at once.
- ``job-list-p99-ms``: `GET /v1/jobs?limit=100` of 10,000 at 50 requests a second, from when each was to be sent; the
  peer is the bound, 50.
- ``job-requests-a-second``: `GET /v1/jobs/{id}` over 8 connections; the peer is a FastAPI route that does nothing.
"""

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter

# `-P` keeps this folder, whose names are those of modules of Python, out of the path.
sys.path.append(str(Path(__file__).parent / "shared"))

from http_client import Connection, request
from load import latencies, requests_a_second
from prepared_jobs import PreparedJobs
from servers import cryomamba, medians, plain_uvicorn, token

JOBS = 10_000
FILE_MIB = 256
RANGE_MIB = 8
LIST_RATE = 50
LIST_SECONDS = 12
P99_BOUND_MS = 50
REQUEST_SECONDS = 3
CONNECTIONS = 8
OK, PARTIAL = 200, 206


def download(port: int, path: str, *, ranges: bool) -> float:
    """Download the file over one connection, at once or in ranges; return MiB/s."""
    step = (RANGE_MIB if ranges else FILE_MIB) << 20
    connection = Connection(port)
    start = perf_counter()
    for first in range(0, FILE_MIB << 20, step):
        connection.send("GET", path, {"Range": f"bytes={first}-{first + step - 1}"} if ranges else {})
        status, _, length = connection.answer(keep=False)
        if (status, length) != (PARTIAL if ranges else OK, step):
            raise RuntimeError(f"answered {status} with {length} bytes")
    rate = FILE_MIB / (perf_counter() - start)
    connection.close()
    return rate


def print_ratio(name: str, measured: tuple[float, float, float]) -> None:
    """Print a line."""
    mine, theirs, ratio = measured
    print(f"{name} {mine:.0f} {theirs:.0f} {ratio:.2f}", flush=True)


def main() -> None:
    """Prints the lines."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        prepared = PreparedJobs(data_dir)
        job = prepared.completed(FILE_MIB << 20)
        path = prepared.write_artifact(job)
        for _ in range(JOBS - 1):
            prepared.completed()
        prepared.close()
        headers = {"Authorization": f"Bearer {token(data_dir)}"}
        with cryomamba(data_dir) as server, plain_uvicorn("serving:app", DOWNLOAD=str(path)) as peer:
            details = request("GET", f"/v1/jobs/{job.job_id}", headers)
            connection = Connection(server.port)
            connection.socket.sendall(details)
            link = json.loads(connection.answer()[1])["artifacts"][0]["url"]
            connection.close()
            for name, ranges in (("ranges", True), ("whole", False)):
                rates = medians(
                    lambda ranges=ranges: download(server.port, link, ranges=ranges),
                    lambda ranges=ranges: download(peer.port, "/file", ranges=ranges),
                )
                print_ratio(f"download-{name}-mib-a-second", rates)
            listing = request("GET", "/v1/jobs?limit=100", headers)
            took = sorted(latencies(server.port, listing, LIST_RATE, LIST_SECONDS))
            p99 = took[int(len(took) * 0.99)] * 1000
            print(f"job-list-p99-ms {p99:.1f} {P99_BOUND_MS} {p99 / P99_BOUND_MS:.2f}", flush=True)
            empty = request("GET", "/")
            rates = medians(
                lambda: requests_a_second(server.port, details, CONNECTIONS, REQUEST_SECONDS),
                lambda: requests_a_second(peer.port, empty, CONNECTIONS, REQUEST_SECONDS),
            )
            print_ratio("job-requests-a-second", rates)


if __name__ == "__main__":
    main()
