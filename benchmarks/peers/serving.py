"""What the server does, as it is usually written: a route, a file, previews for everybody."""

import base64
import os
from pathlib import Path

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse

app = FastAPI()
preview = Path(os.environ.get("PREVIEW", os.devnull)).read_bytes()
sockets: set[WebSocket] = set()


@app.get("/")
async def nothing() -> dict[str, str]:
    """Answer."""
    return {}


@app.get("/file")
async def file() -> FileResponse:
    """Send the file."""
    return FileResponse(os.environ["DOWNLOAD"])


@app.websocket("/ws")
async def watch(socket: WebSocket) -> None:
    """Keep a socket until its client goes."""
    await socket.accept()
    sockets.add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        sockets.discard(socket)


@app.post("/previews/{count}")
async def previews(count: int) -> None:
    """Send previews to all sockets, each encoded for each of them."""
    for _ in range(count):
        for socket in list(sockets):
            await socket.send_json(
                {
                    "type": "preview",
                    "job_id": "job_aaaaaaaaaaaa",
                    "timestamp": "2026-03-01T12:00:00Z",
                    "preview": {
                        "scale": 4,
                        "shape": [128, 128, 128],
                        "dtype": "uint8",
                        "slice_idx": 64,
                        "encoding": "base64",
                        "data": base64.b64encode(preview).decode(),
                    },
                }
            )
