"""More jobs than GPUs: nobody jumps the queue, and no job is done twice or not at all."""

import pytest

from support.queueing import lab, load_stub
from support.waiting import until

pytestmark = pytest.mark.timeout(400)
JOBS = 40
GPUS = 2


@pytest.fixture(scope="module")
def _stub(cluster, tmp_path_factory):
    load_stub(tmp_path_factory.mktemp("stub"))


@pytest.fixture
def queue(_stub, namespace, bucket, tmp_path):
    with lab(namespace, bucket, tmp_path) as running:
        yield running


def test_jobs_that_come_at_once_are_begun_in_order_and_each_is_done_once(queue):
    names = [queue.submit(number) for number in range(JOBS)]

    until(lambda: queue.count("completed") == JOBS, 350)

    assert sorted(queue.ledger.begun) == sorted(names)
    assert queue.out_of_turn(names, GPUS) == []
    assert {name: len(pods) for name, pods in queue.ledger.pods.items()} == dict.fromkeys(names, 1)
    assert [queue.count(status) for status in ("queued", "running", "failed", "cancelled")] == [0, 0, 0, 0]
