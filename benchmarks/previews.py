"""Previews for 100 WebSockets, against `send_json` for each of them (run with `python -P`, as `make bench` does).

A preview is a PNG of 128 x 128 pixels of noise. Prints lines ``name ours peer ratio`` of deliveries for each second of
the server's CPU time, in user and kernel:

- ``preview-fanout-browsers``: end to end, from a runner's report to the clients' sockets, which offer compression as
  browsers do: ours declines, what is usually written takes what uvicorn offers.
- ``preview-fanout-plain``: the same with clients that don't offer it. Most of what is left is the kernel's copying.
- ``preview-fanout-encoding``: only what is done in Python, in this process: from the PNG to the frames that are
  handed to the transports, which drop them.

Ours is the server as its users start it, with a stub in the place of the runner; the peer's route is in
`peers/serving.py`. The first two are the median of rounds in turn.
"""

import asyncio
import base64
import os
import sys
import tempfile
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

# `-P` keeps this folder, whose names are those of modules of Python, out of the path.
sys.path.append(str(Path(__file__).parent / "shared"))

from http_client import Connection
from PIL import Image
from prepared_jobs import PreparedJobs
from servers import BENCHMARKS, Server, cryomamba, medians, plain_uvicorn, token
from starlette.websockets import WebSocket
from watchers import Watchers
from websockets.frames import Frame, Opcode

from cryomamba_apiserver.jobs import present
from cryomamba_apiserver.jobs.mailbox import Mailbox, Message
from cryomamba_apiserver.ports.job_store import JobRecord
from cryomamba_crds.report import Preview

CLIENTS = 100
EDGE = 128
PREVIEWS = 100
INTERVAL = 0.02
"""Seconds between two previews of ours; slow enough that none is overtaken by the next."""
PEER_PREVIEWS = 12
ENCODED = 200
SILENCE = 0.5
RUNNER = BENCHMARKS / "fakes" / "runner"


def ours(server: Server, orders: Path, watchers: Watchers) -> float:
    """Have previews made; return deliveries a CPU second."""
    delivered, before = watchers.read(SILENCE), server.cpu_seconds()
    with orders.open("a") as told:
        print(PREVIEWS, INTERVAL, file=told)
    delivered = watchers.read(SILENCE) - delivered
    return delivered / (server.cpu_seconds() - before)


def peer(server: Server, watchers: Watchers) -> float:
    """Have previews sent; return deliveries a CPU second."""
    delivered, before = watchers.previews, server.cpu_seconds()
    connection = Connection(server.port)
    connection.send("POST", f"/previews/{PEER_PREVIEWS}", {"Content-Length": "0"})
    watchers.read(5 * SILENCE, until=delivered + PEER_PREVIEWS * CLIENTS)
    status, _, _ = connection.answer()
    connection.close()
    if status != 200:  # noqa: PLR2004 - OK
        raise RuntimeError(f"answered {status}")
    return (watchers.previews - delivered) / (server.cpu_seconds() - before)


def encoding(job: JobRecord, png: bytes) -> tuple[float, float]:
    """Return deliveries a CPU second without sockets, ours and the peer's."""
    return asyncio.run(_rate(made_once(job, png))), asyncio.run(_rate(made_for_each(job, png)))


async def _rate(rounds: AsyncGenerator[None, None]) -> float:
    """Go through the rounds, in each of which there is a preview for each client."""
    await anext(rounds)  # all is made ready
    before = process_time()
    for _ in range(ENCODED):
        await anext(rounds)
    rate = ENCODED * CLIENTS / (process_time() - before)
    await rounds.aclose()
    return rate


async def made_once(job: JobRecord, png: bytes) -> AsyncGenerator[None, None]:
    """As the server does it: what `Mailbox` hands to a transport."""
    preview = Preview(sequence=1, key="-", scale=4, shape=(EDGE, EDGE, EDGE), slice_idx=64)
    mailboxes = [Mailbox(bool) for _ in range(CLIENTS)]  # takes every frame, as a transport does that is not busy

    async def wait(mailbox: Mailbox) -> None:
        async for _ in mailbox.messages():
            raise RuntimeError("the mailbox had a message to keep")

    waiting = [asyncio.create_task(wait(mailbox)) for mailbox in mailboxes]
    await asyncio.sleep(0)
    try:
        while True:
            yield
            message = Message("preview", present.preview_message(job, preview, png))
            for mailbox in mailboxes:
                mailbox.put(message)
    finally:
        for mailbox in mailboxes:
            mailbox.end()
        await asyncio.gather(*waiting)


async def made_for_each(job: JobRecord, png: bytes) -> AsyncGenerator[None, None]:
    """As it is usually done: what the WebSocket's protocol hands to a transport."""

    async def send(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        if message["type"] == "websocket.send":
            Frame(Opcode.TEXT, message["text"].encode()).serialize(mask=False)

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    sockets = [WebSocket({"type": "websocket"}, receive, send) for _ in range(CLIENTS)]
    for socket in sockets:
        await socket.accept()
    picture = {"scale": 4, "shape": [EDGE, EDGE, EDGE], "dtype": "uint8", "slice_idx": 64, "encoding": "base64"}
    while True:
        yield
        for socket in sockets:
            encoded = {**picture, "data": base64.b64encode(png).decode()}
            moment = datetime.now(UTC).isoformat()
            await socket.send_json({"type": "preview", "job_id": job.job_id, "timestamp": moment, "preview": encoded})


def main() -> None:
    """Prints the lines."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir, orders, png = Path(folder) / "data", Path(folder) / "orders", Path(folder) / "noise.png"
        data_dir.mkdir()
        prepared = PreparedJobs(data_dir)
        job = prepared.queued()
        prepared.close()
        os.mkfifo(orders)
        Image.frombytes("L", (EDGE, EDGE), os.urandom(EDGE * EDGE)).save(png)
        stub = {"PYTHONPATH": str(RUNNER), "PREVIEW_ORDERS": str(orders), "PREVIEW": str(png)}
        with (
            cryomamba(data_dir, stub) as server,
            plain_uvicorn("serving:app", PREVIEW=str(png)) as plain,
        ):
            for name, deflate in (("browsers", True), ("plain", False)):
                mine = Watchers(server.port, f"/ws/jobs/{job.job_id}", CLIENTS, token(data_dir), deflate=deflate)
                theirs = Watchers(plain.port, "/ws", CLIENTS, deflate=deflate)
                rates = medians(lambda: ours(server, orders, mine), lambda: peer(plain, theirs))  # noqa: B023 - used now
                mine.close()
                theirs.close()
                print("preview-fanout-{} {:.0f} {:.0f} {:.1f}".format(name, *rates), flush=True)
        mine_rate, theirs_rate = encoding(job, png.read_bytes())
        print(f"preview-fanout-encoding {mine_rate:.0f} {theirs_rate:.0f} {mine_rate / theirs_rate:.1f}")


if __name__ == "__main__":
    main()
