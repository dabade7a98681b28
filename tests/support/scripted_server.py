"""A server whose clock, GPU and runner a test sets: `scripted_server.py DATA_DIR CONTROL_DIR RUNNER`.

For what no real server does on demand: an upload that expires, a graphics card that fills up. It prints its address.
`CONTROL_DIR/clock` holds the seconds by which its clock is ahead; `CONTROL_DIR/script` is what jobs do.
"""

import socket
import sys
from datetime import datetime, timedelta
from pathlib import Path

from cryomamba_apiserver.app import create_app, utc_now
from cryomamba_apiserver.gpus.service import GpuInventory
from cryomamba_apiserver.operations.logs import configure_logs
from cryomamba_apiserver.operations.serving import ApiServer, server_config
from cryomamba_apiserver.settings import Settings
from support.server_data import A6000


def main(data_dir: Path, control: Path, runner: str) -> None:
    def now() -> datetime:
        return utc_now() + timedelta(seconds=float((control / "clock").read_text()))

    settings = Settings(data_dir=data_dir)
    configure_logs("json", "info")
    app = create_app(
        settings,
        now=now,
        gpus_of_this_machine=lambda: GpuInventory("12.1", (A6000,)),
        runner=(sys.executable, runner, str(control / "script")),
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        async def close_sockets() -> None:
            await app.state.context.live.close()

        ApiServer(
            server_config(app, settings, app.state.metrics),
            announce=lambda: print(address, flush=True),
            close_sockets=close_sockets,
            beside=None,
        ).run([listener])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
