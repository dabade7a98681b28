"""A server whose clock, GPU and runner a test sets: `scripted_server.py DATA_DIR CONTROL_DIR RUNNER`.

For what no real server does on demand: an upload that expires, a graphics card that fills up. It prints its address.
`CONTROL_DIR/clock` holds the seconds by which its clock is ahead; `CONTROL_DIR/script` is what jobs do.
"""

import socket
import sys
from datetime import datetime, timedelta
from pathlib import Path

import uvicorn

from cryomamba_apiserver.app import create_app, utc_now
from cryomamba_apiserver.gpus.service import GpuInventory
from cryomamba_apiserver.settings import Settings
from support.server_data import A6000


def main(data_dir: Path, control: Path, runner: str) -> None:
    def now() -> datetime:
        return utc_now() + timedelta(seconds=float((control / "clock").read_text()))

    app = create_app(
        Settings(data_dir=data_dir),
        now=now,
        gpus_of_this_machine=lambda: GpuInventory("12.1", (A6000,)),
        runner=(sys.executable, runner, str(control / "script")),
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, ws="websockets-sansio")).run(
            [listener]
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
