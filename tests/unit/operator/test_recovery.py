"""Stories about crashes, lost watches and other hands, told of the whole operator on a cluster in memory."""

from collections.abc import Awaitable, Callable
from typing import Any

from cryomamba_operator.ports import GoneError
from cryomamba_operator.queue import UnavailableError

Play = Callable[[Callable[[Any], Awaitable[None]]], None]
Make = Callable[..., dict[str, Any]]

RUNNING = {"running": {"startedAt": "2026-03-01T12:00:00Z"}}


def jobs(world: Any) -> list[str]:
    return [key.name for key in world.cluster.jobs]


def test_a_job_made_before_a_crash_is_adopted_and_not_made_again(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        world.cluster.fail("patch_status", *[UnavailableError("gone")] * 3)
        key = world.cluster.submit("tomo-1")
        await world.after(0.5)
        await world.start()
        await world.after(5)

        assert world.cluster.count("create_job") == 1
        assert world.status(key)["jobName"] == "tomo-1"

    play(story)


def test_a_job_that_no_watch_has_told_of_yet_is_adopted(play: Play, raw_job: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        world.cluster.deaf = True
        world.cluster.put_job(raw_job())
        world.cluster.deaf = False
        key = world.cluster.submit("tomo-1")
        await world.after()

        assert world.condition(key, "Scheduled") == ("False", "Pending")
        assert world.cluster.count("delete_job") == 0

    play(story)


def test_a_job_whose_deletion_did_not_work_is_deleted_later(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.cluster.fail("delete_job", UnavailableError("gone"))
        world.cluster.change(key, desiredState="Cancelled")
        await world.after(5)

        assert jobs(world) == []
        assert world.condition(key, "Finished") == ("True", "Cancelled")

    play(story)


def test_a_job_deleted_by_hand_is_made_again_with_the_attempts_that_are_left(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1", maxAttempts=2)
        await world.after()
        world.cluster.put_pod(raw_pod(node="gpu-1", phase="Running", state=RUNNING))
        await world.after()
        world.cluster._tell("job", "DELETED", world.cluster.jobs.pop(key))
        world.cluster.drop_pod("uid-of-pod-tomo-1-1")
        await world.after()
        assert world.cluster.jobs[key]["spec"]["backoffLimit"] == 0
        world.cluster.put_pod(raw_pod(number=2, node="gpu-1", phase="Running", state=RUNNING))
        await world.after()
        assert world.status(key)["attempt"] == 2
        world.cluster._tell("job", "DELETED", world.cluster.jobs.pop(key))
        await world.after()

        assert world.condition(key, "Succeeded") == ("False", "JobDeleted")
        assert world.cluster.count("create_job") == 2

    play(story)


def test_that_a_job_is_gone_is_not_concluded_from_a_watchs_silence(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.operator.intake.saw_job("DELETED", world.cluster.jobs[key])
        await world.after()

        assert world.cluster.calls[-1] == "read_job tomo-1"
        assert world.cluster.count("create_job") == 1

    play(story)


def test_a_terminal_status_is_final_even_where_the_operator_has_missed_it(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.cluster.deaf = True
        world.cluster.change(key)
        world.cluster.records[key]["status"]["conditions"] = [
            {
                "type": "Succeeded",
                "status": "True",
                "reason": "Succeeded",
                "message": "",
                "lastTransitionTime": "2026-03-01T12:00:00Z",
            }
        ]
        world.cluster.deaf = False
        world.cluster.end_job(key, "Failed", "BackoffLimitExceeded")
        await world.after(10)

        assert world.condition(key, "Succeeded") == ("True", "Succeeded")

    play(story)


def test_a_resync_repairs_what_a_lost_watch_missed(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start(max_active_jobs=9)
        finished = world.cluster.submit("finished")
        gone = world.cluster.submit("gone")
        await world.after()
        world.cluster.deaf = True
        world.cluster.end_job(finished, "Complete")
        del world.cluster.records[gone], world.cluster.jobs[gone]
        world.cluster._stamped(world.cluster.records[finished])
        new = world.cluster.submit("new")
        await world.after(100)
        assert world.condition(new, "Scheduled") == ("", "")
        world.cluster.deaf = False
        await world.after(201)

        assert world.condition(finished, "Finished") == ("True", "Succeeded")
        assert world.status(new)["jobName"] == "new"
        assert jobs(world) == ["finished", "new"]

    play(story)


def test_a_record_that_is_deleted_while_it_is_worked_on_is_forgotten(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start(max_active_jobs=1, workers=1)
        world.cluster.fail("create_job", UnavailableError("gone"))
        key = world.cluster.submit("tomo-1", minute=1)
        other = world.cluster.submit("tomo-2", minute=2)
        await world.after(0.1)
        world.cluster.deaf = True
        del world.cluster.records[key]
        world.cluster.deaf = False
        await world.after(5)
        world.cluster._tell("job", "DELETED", world.cluster.jobs.pop(key))
        await world.after(5)

        assert world.status(other)["jobName"] == "tomo-2"

    play(story)


def test_the_operator_goes_on_soon_after_an_outage(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start(max_active_jobs=50)
        down = [UnavailableError("connection refused")] * 10_000
        world.cluster.fail("create_job", *down)
        for number in range(20):
            world.cluster.submit(f"tomo-{number}")
        await world.after(20)
        assert jobs(world) == []
        world.cluster.failures["create_job"].clear()
        await world.after(3)

        assert len(jobs(world)) == 20
        assert world.cluster.count("create_job") < 20 + 30 * world.settings.workers

    play(story)


def test_events_that_the_api_server_refuses_stop_nothing(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        world.cluster.fail("create_event", GoneError("no such namespace"), UnavailableError("gone"))
        first = world.cluster.submit("tomo-1")
        second = world.cluster.submit("tomo-2")
        await world.after()
        world.cluster.end_job(first, "Complete")
        world.cluster.end_job(second, "Complete")
        await world.after(5)

        assert [event["involvedObject"]["name"] for event in world.cluster.events] == ["tomo-2"]

    play(story)


def test_the_last_word_about_a_deleted_record_does_not_end_its_successor(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1", activeDeadlineSeconds=60)
        await world.after()
        world.cluster.put_pod(raw_pod(phase="Running", node="gpu-1", state=RUNNING))
        await world.after()
        world.cluster.deaf = True
        del world.cluster.records[key], world.cluster.jobs[key]
        world.cluster.submit("tomo-1")
        await world.after(61)

        assert world.condition(key, "Finished") == ("False", "InProgress")
        assert "attempt" not in world.status(key)
        assert (
            world.cluster.jobs[key]["metadata"]["ownerReferences"][0]["uid"]
            == world.cluster.records[key]["metadata"]["uid"]
        )

    play(story)


def test_a_write_that_comes_between_is_taken_into_account(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.cluster.deaf = True
        world.cluster.change(key, desiredState="Cancelled")
        world.cluster.deaf = False
        world.cluster.end_job(key, "Failed", "BackoffLimitExceeded")
        await world.after()

        assert world.condition(key, "Succeeded") == ("False", "Cancelled")

    play(story)
