"""Stories about jobs that fail or cannot start, told of the whole operator on a cluster in memory."""

import copy
from collections.abc import Awaitable, Callable
from typing import Any

from cryomamba_operator.observe import EventFacts
from cryomamba_operator.ports import RefusedError

Play = Callable[[Callable[[Any], Awaitable[None]]], None]
Make = Callable[..., dict[str, Any]]

RUNNING = {"running": {"startedAt": "2026-03-01T12:00:00Z"}}
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}


def jobs(world: Any) -> list[str]:
    return [key.name for key in world.cluster.jobs]


def test_the_running_time_is_bounded_and_waiting_is_not(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1", activeDeadlineSeconds=60)
        await world.after()
        world.cluster.put_pod(raw_pod())
        await world.after(3600)
        assert world.condition(key, "Finished") == ("False", "InProgress")
        world.cluster.put_pod(
            raw_pod(phase="Running", node="gpu-1", state={"running": {"startedAt": "2026-03-01T13:00:00Z"}})
        )
        await world.after(55)
        assert world.condition(key, "Running") == ("True", "Running")
        await world.after(6)

        assert world.condition(key, "Succeeded") == ("False", "DeadlineExceeded")
        assert "Attempt 1 ran for the 60 seconds" in world.status(key)["failure"]["message"]
        assert jobs(world) == []

    play(story)


def test_attempts_are_counted_by_pod_and_the_runners_last_word_is_kept(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1", maxAttempts=2)
        await world.after()
        word = '{"code":"GPU_ERROR","message":"The GPU fell off.","hint":"Try again.","retryable":true}'
        failed = {"terminated": {"exitCode": 75, "message": word}}
        world.cluster.put_pod(raw_pod(number=1, phase="Failed", node="gpu-1", state=failed))
        await world.after()
        assert world.condition(key, "Running") == ("False", "GpuError")
        assert world.condition(key, "Succeeded") == ("Unknown", "Retrying")
        world.cluster.put_pod(raw_pod(number=2, phase="Failed", node="gpu-1", state=failed))
        await world.after()
        world.cluster.end_job(key, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        await world.after()

        assert world.status(key)["attempt"] == 2
        assert world.status(key)["failure"] == {
            "code": "GPU_ERROR",
            "message": "The GPU fell off.",
            "hint": "Try again.",
            "retryable": True,
        }
        assert world.condition(key, "Succeeded") == ("False", "GpuError")

    play(story)


def test_disruptions_are_counted_once_each_and_bounded(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start(max_disruptions=2)
        key = world.cluster.submit("tomo-1", maxAttempts=1)
        await world.after()
        for number in (1, 2, 3):
            world.cluster.put_pod(raw_pod(number=number, node="gpu-1", phase="Running", state=RUNNING))
            await world.after()
            # An eviction first says so and then deletes.
            world.cluster.put_pod(
                raw_pod(number=number, node="gpu-1", phase="Running", state=RUNNING, conditions=[DISRUPTED])
            )
            await world.after()
            pod = raw_pod(number=number, node="gpu-1", phase="Running", state=RUNNING, conditions=[DISRUPTED])
            pod["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:30Z"
            world.cluster.put_pod(pod)
            await world.after()
            if number == 1:
                await world.start(max_disruptions=2)  # and a restart counts nothing twice
                await world.after()
            if number < 3:
                assert world.status(key)["disruptions"] == number
                assert world.condition(key, "Running") == ("False", "Disrupted")
                ended = {"terminated": {"exitCode": 75, "reason": "Error"}}
                over = raw_pod(number=number, node="gpu-1", phase="Failed", state=ended, conditions=[DISRUPTED])
                world.cluster.put_pod(over)
                await world.after()
                assert world.status(key)["disruptions"] == number
                world.cluster.drop_pod(pod["metadata"]["uid"])
                await world.after()

        assert world.status(key)["attempt"] == 3
        assert world.condition(key, "Succeeded") == ("False", "DisruptedTooOften")
        assert jobs(world) == []

    play(story)


def test_an_image_that_cannot_be_pulled_fails_after_the_grace_and_not_before(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        for reason in ("ErrImagePull", "ImagePullBackOff"):
            state = {"waiting": {"reason": reason, "message": "not found"}}
            world.cluster.put_pod(raw_pod(node="gpu-1", state=state))
            await world.after(100)
        await world.start()  # the grace survives a restart
        await world.after(95)
        assert world.condition(key, "Running") == ("False", "ImagePull")
        assert world.condition(key, "Finished") == ("False", "InProgress")
        await world.after(6)

        assert world.condition(key, "Succeeded") == ("False", "ImagePull")
        assert jobs(world) == []
        assert [event["reason"] for event in world.cluster.events] == ["ImagePull", "ImagePull"]

    play(story)


def test_a_busy_gpu_is_never_a_failure(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        words = (
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available: "
            "1 No preemption victims found for incoming pod."
        )
        unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.cluster.put_pod(raw_pod(conditions=[unplaced]))
        await world.after(14 * 24 * 3600)

        assert world.condition(key, "Scheduled") == ("False", "GpuBusy")
        assert world.condition(key, "Finished") == ("False", "InProgress")
        assert world.cluster.count("patch_status") == 2

    play(story)


def test_a_job_without_a_pod_is_explained_from_the_events(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1", priorityClassName="urgent")
        await world.after()
        uid = world.cluster.jobs[key]["metadata"]["uid"]
        words = 'Error creating: pods "tomo-1-" is forbidden: no PriorityClass with name urgent was found'
        world.cluster.warnings[uid] = [EventFacts("FailedCreate", words, None)]
        await world.after(5)
        assert world.condition(key, "Scheduled") == ("False", "NoPriorityClass")
        await world.after(301)

        assert world.condition(key, "Succeeded") == ("False", "NoPriorityClass")
        assert jobs(world) == []

    play(story)


def test_a_lost_node_is_named_with_what_to_do(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        pod = raw_pod(node="gpu-1", phase="Running", state=RUNNING)
        world.cluster.put_pod(pod)
        await world.after()
        taken = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "taint"}
        lost = raw_pod(node="gpu-1", phase="Running", state=RUNNING, conditions=[taken])
        lost["metadata"]["deletionTimestamp"] = "2026-03-01T12:01:00Z"
        world.cluster.put_pod(lost)
        await world.after(70)
        assert world.condition(key, "Running") == ("False", "Disrupted")
        await world.after(60)

        assert world.condition(key, "Running") == ("Unknown", "NodeLost")
        assert world.status(key)["disruptions"] == 1
        assert "out-of-service" in world.cluster.events[-1]["message"]

    play(story)


def test_memory_that_was_not_enough_ends_the_job_at_once(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1", resources={"memory": "4Gi"})
        await world.after()
        state = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        world.cluster.put_pod(raw_pod(node="gpu-1", phase="Failed", state=state))
        await world.after()

        assert world.condition(key, "Succeeded") == ("False", "OutOfMemory")
        assert "4Gi" in world.status(key)["failure"]["message"]
        assert jobs(world) == []

    play(story)


def test_a_complete_job_is_a_success_whatever_killed_a_child_of_it(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        state = {"terminated": {"exitCode": 0, "reason": "OOMKilled"}}
        world.cluster.put_pod(raw_pod(node="gpu-1", phase="Succeeded", state=state))
        world.cluster.end_job(key, "Complete")
        await world.after()

        assert world.condition(key, "Succeeded") == ("True", "Succeeded")

    play(story)


def test_a_job_that_the_api_server_finds_malformed_fails_at_once(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        world.cluster.fail("create_job", RefusedError(422, "spec.template.spec.containers[0].resources: Invalid value"))
        key = world.cluster.submit("tomo-1")
        await world.after()

        assert world.condition(key, "Succeeded") == ("False", "JobInvalid")
        assert "containers[0].resources" in world.status(key)["failure"]["message"]

    play(story)


def test_a_namespace_full_of_jobs_is_waited_for(play: Play) -> None:
    async def story(world: Any) -> None:
        full = "exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=9, limited: count/jobs.batch=9"
        await world.start()
        world.cluster.fail("create_job", RefusedError(403, full))
        key = world.cluster.submit("tomo-1")
        await world.after(1)
        assert world.condition(key, "Scheduled") == ("False", "QuotaExceeded")
        await world.after(20)

        assert world.condition(key, "Scheduled") == ("False", "Pending")

    play(story)


def test_a_suspended_job_says_that_its_queue_holds_it(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.start()
        key = world.cluster.submit("tomo-1", queueName="gpu-queue")
        await world.after()
        job = copy.deepcopy(world.cluster.jobs[key])
        job["spec"]["suspend"] = True
        world.cluster.put_job(job)
        await world.after(3600)

        assert world.condition(key, "Scheduled") == ("False", "Suspended")
        assert world.cluster.count("warnings_about") == 0

    play(story)


def test_a_node_that_is_closed_for_maintenance_is_no_failure(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        words = "0/1 nodes are available: 1 node(s) had untolerated taint(s). preemption: 1 Preemption is not helpful"
        unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
        world.cluster.node_taints = ["node.kubernetes.io/unschedulable"]
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()
        world.cluster.put_pod(raw_pod(conditions=[unplaced]))
        await world.after(7200)
        assert world.condition(key, "Scheduled") == ("False", "NodesUnavailable")
        world.cluster.node_taints = ["dedicated"]
        await world.after(301 + 1801)

        assert world.condition(key, "Succeeded") == ("False", "UntoleratedTaint")

    play(story)
