"""uvicorn's WebSocket protocol, which also writes frames that were made once for many, and lets go of dead peers."""

from typing import TYPE_CHECKING

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from cryomamba_apiserver.jobs.mailbox import FRAMES

if TYPE_CHECKING:
    from websockets.http11 import Request


class FrameWritingProtocol(WebSocketsSansIOProtocol):
    """To be given to uvicorn as `ws`, with `ws_per_message_deflate=False`: frames are written as they are."""

    def handle_connect(self, event: "Request") -> None:
        """Offer the extension to the app, which does not run before the next turn of the event loop."""
        super().handle_connect(event)
        if self.response.status_code == 101:  # noqa: PLR2004 - Switching Protocols
            self.scope["extensions"] = {**(self.scope["extensions"] or {}), FRAMES: {"write": self.write_frame}}

    def write_frame(self, frame: bytes) -> bool:
        """Write a whole frame if the connection is open and has sent nearly all it was given; return whether it did."""
        if not self.writable.is_set() or self.close_sent or self.transport.is_closing():
            return False
        if not self.handshake_complete or self.conn.state is not State.OPEN:
            return False
        self.transport.write(frame)
        return True

    def keepalive_timeout(self) -> None:
        """Let go of a peer that does not answer: `close` alone would wait until it has read what was sent."""
        super().keepalive_timeout()
        self.transport.abort()
