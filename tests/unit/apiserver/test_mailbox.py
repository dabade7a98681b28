"""What a socket is told, one at a time and by a real server."""

import asyncio
import json

import pytest

from cryomamba_apiserver.jobs.mailbox import Mailbox, Message


async def turn() -> None:
    """Let everything that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


class Reader:
    """A socket that takes what its mailbox yields, when it is let."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.got: list[str] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.task = asyncio.create_task(self._read(mailbox))

    async def _read(self, mailbox: Mailbox) -> None:
        async for message in mailbox.messages():
            self.got.append(message.text)
            await self.may_go_on.wait()


def test_a_reader_that_keeps_up_is_written_to_at_once_and_its_task_sleeps_on():
    async def story() -> tuple[list[bytes], list[str]]:
        written: list[bytes] = []
        mailbox = Mailbox(lambda frame: written.append(frame) or True)
        reader = Reader(mailbox)
        await turn()
        mailbox.put(Message("progress", "a"))
        mailbox.put(Message("preview", "b"))
        mailbox.end()
        await reader.task
        return written, reader.got

    # Two text frames of one byte, final and unmasked.
    assert asyncio.run(story()) == ([b"\x81\x01a", b"\x81\x01b"], [])


def test_nothing_overtakes_what_is_still_being_sent():
    async def story() -> tuple[list[bytes], list[str]]:
        written: list[bytes] = []
        free = False

        def write(frame: bytes) -> bool:
            if free:
                written.append(frame)
            return free

        mailbox = Mailbox(write)
        reader = Reader(mailbox)
        await turn()
        reader.may_go_on.clear()
        mailbox.put(Message("preview", "1"))
        await turn()  # the reader is sending it now
        free = True
        mailbox.put(Message("preview", "2"))
        mailbox.put(Message("progress", "3"))
        mailbox.put(Message("preview", "4"))
        reader.may_go_on.set()
        await turn()
        mailbox.put(Message("preview", "5"))
        mailbox.end()
        await reader.task
        return written, reader.got

    assert asyncio.run(story()) == ([b"\x81\x015"], ["1", "3", "4"])


def test_a_reader_that_does_nothing_is_kept_one_message_of_each_kind():
    async def story() -> int:
        mailbox = Mailbox()
        for number in range(1000):
            mailbox.put(Message("preview", str(number)))
            mailbox.put(Message("progress", str(number)))
        mailbox.end()
        return [message.text async for message in mailbox.messages()]

    assert asyncio.run(story()) == ["999", "999"]


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_a_frame_is_what_a_client_reads_back(length):
    from websockets.client import ClientProtocol
    from websockets.protocol import State
    from websockets.uri import parse_uri

    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN)
    text = json.dumps("é" * length)

    client.receive_data(Message("preview", text).frame)

    (frame,) = client.events_received()
    assert bytes(frame.data).decode() == text
