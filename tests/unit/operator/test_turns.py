"""Stories about who comes first, told of the whole operator on a cluster in memory."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cryomamba_crds.ids import Key

Play = Callable[[Callable[[Any], Awaitable[None]]], None]


def jobs(world: Any) -> list[str]:
    return [key.name for key in world.cluster.jobs]


@pytest.mark.parametrize("restart", [False, True])
def test_a_thousand_records_are_taken_in_order_and_none_twice(play: Play, restart: bool) -> None:
    async def story(world: Any) -> None:
        await world.start(max_active_jobs=3)
        keys = [world.cluster.submit(f"tomo-{number:04d}", minute=number % 60) for number in range(300)]
        expected = [key.name for key in sorted(keys, key=lambda key: (int(key.name[5:]) % 60, key.name))]
        await world.after()
        while world.cluster.jobs:
            assert len(world.cluster.jobs) <= 3
            if restart and len(world.cluster.jobs) == 3 and world.cluster.count("create_job") % 50 == 0:
                await world.start()
            key = next(iter(world.cluster.jobs))
            world.cluster.end_job(key, "Complete")
            await world.after()
            world.cluster._tell("job", "DELETED", world.cluster.jobs.pop(key))

        created = [call.split()[1] for call in world.cluster.calls if call.startswith("create_job")]
        # The first three are taken as they arrive; from then on all the others are known.
        assert sorted(created) == sorted(expected)
        assert created[3:] == [name for name in expected if name not in created[:3]]
        assert all(world.condition(key, "Succeeded") == ("True", "Succeeded") for key in keys)

    play(story)


def test_priority_and_fairness_decide_among_those_who_wait(play: Play) -> None:
    async def story(world: Any) -> None:
        world.cluster.priority_classes = {"urgent": 100}
        await world.start(max_active_jobs=1)
        world.cluster.submit("first", owner="ada", minute=0)
        await world.after()
        world.cluster.submit("second-of-ada", owner="ada", minute=1)
        world.cluster.submit("first-of-bob", owner="bob", minute=2)
        world.cluster.submit("urgent-of-ada", owner="ada", minute=3, priorityClassName="urgent")
        await world.after()
        world.cluster.gpus = 9
        for name in ("first", "urgent-of-ada", "second-of-ada"):
            world.cluster.end_job(Key("lab", name), "Complete")
            await world.after()

        created = [call.split()[1] for call in world.cluster.calls if call.startswith("create_job")]
        assert created == ["first", "urgent-of-ada", "second-of-ada", "first-of-bob"]

    play(story)


def test_within_a_second_those_come_first_whom_the_api_server_took_in_first(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start(max_active_jobs=1)
        world.cluster.submit("first")
        await world.after()
        # Names, which decide where nothing else does, say the opposite.
        for place, name in enumerate(("d", "c", "b", "a")):
            world.cluster.submit(name, minute=1, submitted=f"2026-03-01T11:01:00.{place}+00:00")
        await world.after()
        for name in ("first", "d", "c", "b"):
            world.cluster.end_job(Key("lab", name), "Complete")
            await world.after()

        created = [call.split()[1] for call in world.cluster.calls if call.startswith("create_job")]
        assert created == ["first", "d", "c", "b", "a"]

    play(story)


def test_as_many_jobs_exist_as_there_are_gpus_and_more_when_more_come(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        for number in range(5):
            world.cluster.submit(f"tomo-{number}")
        await world.after()
        assert len(jobs(world)) == 2
        world.cluster.gpus = 4
        await world.after(301)

        assert len(jobs(world)) == 4

    play(story)
