"""Stories about the way of a job, told of the whole operator on a cluster in memory."""

import copy
from collections.abc import Awaitable, Callable
from typing import Any

Play = Callable[[Callable[[Any], Awaitable[None]]], None]
Make = Callable[..., dict[str, Any]]

RUNNING = {"running": {"startedAt": "2026-03-01T12:00:00Z"}}


def jobs(world: Any) -> list[str]:
    return [key.name for key in world.cluster.jobs]


def test_a_record_becomes_a_job_with_one_write_to_its_status(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()

        assert world.cluster.calls == ["list_records", "create_job tomo-1", "patch_status tomo-1"]
        assert world.status(key)["jobName"] == "tomo-1"
        assert world.condition(key, "Scheduled") == ("False", "Pending")
        assert world.condition(key, "Finished") == ("False", "InProgress")
        assert world.status(key)["observedGeneration"] == 1

    play(story)


def test_the_way_of_a_job_takes_one_write_a_transition(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.cluster.put_pod(raw_pod())
        await world.after()
        assert world.status(key)["podUid"] == "uid-of-pod-tomo-1-1"
        assert world.status(key)["attempt"] == 1
        world.cluster.put_pod(raw_pod(node="gpu-1", state={"waiting": {"reason": "ContainerCreating"}}))
        await world.after()
        assert world.condition(key, "Scheduled") == ("True", "Scheduled")
        world.cluster.put_pod(raw_pod(node="gpu-1", phase="Running", state=RUNNING))
        await world.after()
        assert world.condition(key, "Running") == ("True", "Running")
        assert world.status(key)["startedAt"] == "2026-03-01T12:00:00Z"
        world.cluster.put_pod(raw_pod(node="gpu-1", phase="Succeeded", state={"terminated": {"exitCode": 0}}))
        world.cluster.end_job(key, "Complete")
        await world.after()

        assert world.condition(key, "Succeeded") == ("True", "Succeeded")
        assert world.condition(key, "Finished") == ("True", "Succeeded")
        assert world.cluster.count("patch_status") == 5
        assert [event["reason"] for event in world.cluster.events] == ["Running", "Succeeded"]
        assert jobs(world) == ["tomo-1"]

    play(story)


def test_a_strangers_job_is_never_touched_and_a_condition_says_so(play: Play, raw_job: Make) -> None:
    async def story(world: Any) -> None:
        stranger = raw_job(metadata={"ownerReferences": [], "labels": {}})
        await world.start(max_active_jobs=1)
        world.cluster.put_job(stranger)
        before = copy.deepcopy(world.cluster.jobs)
        key = world.cluster.submit("tomo-1", minute=1)
        other = world.cluster.submit("tomo-2", minute=2)
        await world.after(1)

        assert world.condition(key, "Scheduled") == ("False", "JobNameTaken")
        assert world.status(other)["jobName"] == "tomo-2"
        assert world.cluster.jobs[key] == before[key]
        await world.after(30)
        assert world.condition(key, "Scheduled") == ("False", "JobNameTaken"), "also while it is not its turn"
        world.cluster.end_job(other, "Complete")
        await world.after(60)
        assert world.cluster.jobs[key] == before[key]
        del world.cluster.jobs[key]
        await world.after(60)
        assert world.condition(key, "Scheduled") == ("False", "Pending")

    play(story)


def test_a_cancelled_record_leaves_a_strangers_job_alone(play: Play, raw_job: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        world.cluster.put_job(raw_job(metadata={"ownerReferences": [], "labels": {}}))
        key = world.cluster.submit("tomo-1")
        await world.after(1)
        world.cluster.change(key, desiredState="Cancelled")
        await world.after(1)

        assert world.condition(key, "Succeeded") == ("False", "Cancelled")
        assert jobs(world) == ["tomo-1"]

    play(story)


def test_the_job_of_an_earlier_record_of_the_same_name_is_waited_for(play: Play, raw_job: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        world.cluster.put_job(raw_job(owner_uid="uid-of-an-earlier-one"))
        key = world.cluster.submit("tomo-1")
        await world.after(1)
        assert world.condition(key, "Scheduled") == ("False", "WaitingForCleanup")
        world.cluster._tell("job", "DELETED", world.cluster.jobs.pop(key))
        await world.after(20)

        assert world.status(key)["jobName"] == "tomo-1"

    play(story)


def test_cancelling_keeps_the_record_and_deletes_the_job(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.cluster.put_pod(raw_pod(node="gpu-1", phase="Running", state=RUNNING))
        await world.after()
        world.cluster.change(key, desiredState="Cancelled")
        await world.after()

        assert world.condition(key, "Succeeded") == ("False", "Cancelled")
        assert world.condition(key, "Finished") == ("True", "Cancelled")
        assert world.status(key)["observedGeneration"] == 2
        assert "failure" not in world.status(key)
        assert jobs(world) == []

    play(story)


def test_a_record_cancelled_in_the_queue_never_gets_a_job(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start(max_active_jobs=1)
        world.cluster.submit("tomo-1", minute=1)
        key = world.cluster.submit("tomo-2", minute=2)
        await world.after()
        assert world.condition(key, "Scheduled") == ("False", "Queued")
        world.cluster.change(key, desiredState="Cancelled")
        await world.after()

        assert world.condition(key, "Finished") == ("True", "Cancelled")
        assert jobs(world) == ["tomo-1"]

    play(story)


def test_a_finished_record_goes_when_its_time_is_over(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1", ttlSecondsAfterFinished=3600)
        forever = world.cluster.submit("tomo-2")
        await world.after()
        world.cluster.end_job(key, "Complete")
        world.cluster.end_job(forever, "Complete")
        await world.after(3500)
        assert key in world.cluster.records
        await world.after(110)

        assert list(world.cluster.records) == [forever]

    play(story)


def test_a_time_to_live_that_is_set_afterwards_counts_from_the_end(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.cluster.end_job(key, "Complete")
        await world.after(1000)
        world.cluster.change(key, ttlSecondsAfterFinished=1500)
        await world.after(400)
        assert world.status(key)["observedGeneration"] == 2
        await world.after(200)

        assert key not in world.cluster.records

    play(story)


def test_a_pod_that_only_looks_like_ours_is_not_let_report(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        stranger = raw_pod(node="gpu-1", phase="Running", state=RUNNING)
        stranger["metadata"]["ownerReferences"] = []
        world.operator.intake.saw_pod("ADDED", stranger)
        await world.after()

        assert "podUid" not in world.status(key)

    play(story)


def test_a_pods_own_reports_cause_no_work(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.cluster.put_pod(raw_pod(node="gpu-1", phase="Running", state=RUNNING))
        await world.after()
        calls = len(world.cluster.calls)
        for percentage in range(50):
            world.cluster.records[key]["status"]["progress"] = {"percentage": percentage}
            world.cluster._tell("record", "MODIFIED", world.cluster._stamped(world.cluster.records[key]))
        await world.after()

        assert len(world.cluster.calls) == calls
        assert world.operator.metrics.registry.get_sample_value("cryomamba_operator_queue_depth") == 0

    play(story)


def test_states_are_counted_without_naming_jobs(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start(max_active_jobs=1)
        done = world.cluster.submit("done", minute=0)
        await world.after()
        world.cluster.end_job(done, "Complete")
        await world.after()
        world.cluster.submit("pending", minute=1)
        world.cluster.submit("queued", minute=2)
        await world.after()

        value = world.operator.metrics.registry.get_sample_value
        counts = {
            state: value("cryomamba_jobs", {"state": state}) for state in ("queued", "pending", "succeeded", "failed")
        }
        assert counts == {"queued": 1, "pending": 1, "succeeded": 1, "failed": 0}
        assert value("cryomamba_operator_status_writes_total") == 4
        assert value("cryomamba_operator_reconciles_total", {"result": "error"}) is None

    play(story)


def test_cancelling_beats_a_job_that_has_succeeded_and_is_not_recorded_as_such(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.cluster.deaf = True
        world.cluster.end_job(key, "Complete")
        world.cluster.deaf = False
        world.cluster.change(key, desiredState="Cancelled")
        world.cluster._tell("job", "MODIFIED", world.cluster.jobs[key])
        await world.after()

        assert world.condition(key, "Succeeded") == ("False", "Cancelled")
        assert jobs(world) == ["tomo-1"], "what has ended needs no deleting"

    play(story)
