"""Puts load on a server: as much as it takes, or so many requests a second."""

import selectors
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, sleep

from http_client import Connection

_OK = 200


def requests_a_second(port: int, request: bytes, connections: int, seconds: float) -> float:
    """Send one request again and again over some connections, each when the last one is answered; return the rate."""
    waiting = selectors.DefaultSelector()
    opened = [Connection(port) for _ in range(connections)]
    for connection in opened:
        waiting.register(connection.socket, selectors.EVENT_READ, connection)
        connection.socket.sendall(request)
    answered = 0
    start = perf_counter()
    while perf_counter() - start < seconds:
        for key, _ in waiting.select():
            _expect_ok(key.data)
            answered += 1
            key.data.socket.sendall(request)
    rate = answered / (perf_counter() - start)
    for connection in opened:
        _expect_ok(connection)
        connection.close()
    return rate


def latencies(port: int, request: bytes, rate: float, seconds: float, connections: int = 8) -> list[float]:
    """Send requests at a rate whether or not the last ones are answered; return how long each took from its time on."""
    start = perf_counter() + 0.1

    def every_so_many(first: int) -> list[float]:
        connection, took = Connection(port), []
        for number in range(first, int(rate * seconds), connections):
            due = start + number / rate
            sleep(max(0.0, due - perf_counter()))
            connection.socket.sendall(request)
            _expect_ok(connection)
            took.append(perf_counter() - due)
        connection.close()
        return took

    with ThreadPoolExecutor(connections) as threads:
        return [seconds for took in threads.map(every_so_many, range(connections)) for seconds in took]


def _expect_ok(connection: Connection) -> None:
    status, body, _ = connection.answer()
    if status != _OK:
        raise RuntimeError(f"answered {status}: {body.decode()}")
