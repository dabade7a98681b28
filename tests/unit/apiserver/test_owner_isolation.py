"""What belongs to somebody else does not exist: every route of the app is asked for it."""

import re

import pytest
from starlette.websockets import WebSocketDisconnect

from support.waiting import until

ETAG = "0" * 32

# For each route, what a stranger to the thing gets: the status of what does not exist, or None where nothing belongs to
# anybody. A new route fails `test_every_route_is_known` until somebody has thought about it and put it here.
ROUTES = {
    ("GET", "/openapi.json"): None,
    ("GET", "/livez"): None,
    ("GET", "/readyz"): None,
    ("GET", "/v1/healthz"): None,
    ("GET", "/v1/server/info"): None,
    ("GET", "/v1/gpu/status"): None,
    ("POST", "/v1/uploads/init"): None,
    ("GET", "/v1/uploads/{upload_id}"): 404,
    ("DELETE", "/v1/uploads/{upload_id}"): 404,
    ("PUT", "/v1/uploads/{upload_id}/part/{part_number}"): 404,
    ("POST", "/v1/uploads/{upload_id}/complete"): 404,
    ("GET", "/v1/jobs"): None,  # see test_a_list_has_ones_own_jobs_only
    ("POST", "/v1/jobs"): 404,
    ("GET", "/v1/jobs/{job_id}"): 404,
    ("DELETE", "/v1/jobs/{job_id}"): 404,
    # A signed link, which its owner hands on as they like; without one nobody gets in.
    ("GET", "/v1/files/{job_id}/{artifact_name}"): 403,
    ("WEBSOCKET", "/ws/jobs/{job_id}"): 4404,
}
ASKED = sorted((*route, status) for route, status in ROUTES.items() if status)
MADE_UP = {"upload_id": "upl_aaaaaaaaaaaa", "job_id": "job_aaaaaaaaaaaa", "file_id": "file_aaaaaaaaaaaa"}
BODIES = {
    ("POST", "/v1/uploads/{upload_id}/complete"): lambda _: {"parts": [{"part_number": 0, "etag": ETAG}]},
    ("POST", "/v1/jobs"): lambda ids: {"file_id": ids["file_id"], "model": "demo"},
}


def routes_of(router):
    """Each route of an app, of the routers that it includes as well."""
    for route in router.routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            assert not route.include_context.prefix, "paths are read without a prefix here"
            yield from routes_of(included)
        else:
            methods = getattr(route, "methods", None) or {"WEBSOCKET"}
            yield from ((method, route.path) for method in methods if method != "HEAD")


@pytest.fixture
def adas(ada, upload, emd_3197):
    """What Ada has: an upload that goes on, a file, and a job that is done."""
    going_on = ada.post(
        "/v1/uploads/init", json={"filename": "a.mrc", "total_size": 6 * 1024**2, "chunk_size": 5 * 1024**2}
    ).json()["upload_id"]
    file_id = upload(emd_3197).json()["file_id"]
    job_id = ada.post("/v1/jobs", json={"file_id": file_id, "model": "demo"}).json()["job_id"]
    until(lambda: ada.get(f"/v1/jobs/{job_id}").json()["status"] == "completed")
    return {"upload_id": going_on, "file_id": file_id, "job_id": job_id}


def request(client, method, path, ids):
    url = path.format(part_number=0, artifact_name="segmentation.mrc", **ids)
    body = BODIES.get((method, path))
    if method == "PUT":
        return client._send(method, url, content=bytes(5 * 1024**2))
    return client._send(method, url, json=body(ids)) if body else client._send(method, url)


def answer(client, method, path, ids):
    """The status and the error that somebody gets, with what was asked for taken out of it."""
    if method == "WEBSOCKET":
        url = f"{path.format(**ids)}?token={client.token}"
        with client.client.websocket_connect(url) as socket, pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        code, text = closed.value.code, closed.value.reason
    else:
        got = request(client, method, path, ids)
        code, text = got.status_code, got.text
    return code, re.sub("|".join(ids.values()), "…", text)


def test_every_route_is_known(server):
    assert set(routes_of(server.app)) == set(ROUTES)


@pytest.mark.parametrize(("method", "path", "status"), ASKED)
def test_what_is_somebody_elses_is_answered_like_what_is_not_there(bob, adas, method, path, status):
    hers = answer(bob, method, path, adas)

    assert hers[0] == status
    assert hers == answer(bob, method, path, MADE_UP)


@pytest.mark.parametrize(("method", "path", "status"), [row for row in ASKED if "files" not in row[1]])
def test_what_is_ones_own_is_answered_otherwise(ada, adas, method, path, status):
    if method == "WEBSOCKET":
        with ada.client.websocket_connect(f"{path.format(**adas)}?token={ada.token}") as socket:
            assert socket.receive_json()["job_id"] == adas["job_id"]
    else:
        assert request(ada, method, path, adas).status_code != status


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/jobs/{job_id}"), ("GET", "/v1/uploads/{upload_id}")])
def test_an_admin_sees_everybodys(server, token, adas, method, path):
    root = token("root", "admin")

    answered = server.request(method, path.format(**adas), headers={"Authorization": f"Bearer {root}"})

    assert answered.status_code == 200


def test_a_list_has_ones_own_jobs_only(ada, bob, adas):
    assert [job["job_id"] for job in ada.get("/v1/jobs").json()["jobs"]] == [adas["job_id"]]
    assert bob.get("/v1/jobs").json()["jobs"] == []
    assert bob.get("/v1/jobs").json()["total"] == 0
    beside_hers, beside_none = (bob.get(f"/v1/jobs?before={job}") for job in (adas["job_id"], MADE_UP["job_id"]))
    assert (beside_hers.status_code, beside_hers.json()) == (beside_none.status_code, beside_none.json())


@pytest.mark.parametrize(("method", "path", "status"), ASKED)
def test_nothing_of_anybodys_is_had_without_a_token(server, adas, method, path, status):
    class Nobody:
        client, token = server, ""

        @staticmethod
        def _send(verb, url, **content):
            return server.request(verb, url, **content)

    got = answer(Nobody(), method, path, adas)

    assert got[0] == {"WEBSOCKET": 4401}.get(method, 403 if "files" in path else 401)
