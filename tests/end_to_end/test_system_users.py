"""As root, servers and jobs run as the users' own system accounts."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from era_hub import models
from era_hub.models import JobState
from tests.running_hub import FAST, RunningHub, until

ACCOUNT = "era-test-sysuser"
# The tests' own interpreter may lie where only root can go; a system's never does.
PYTHON = "/usr/bin/python3"

# Answers like a notebook server as far as the hub asks; what counts is who runs it.
SERVER = f"""#!{PYTHON}
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlparse

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

url = urlparse(os.environ["JUPYTERHUB_SERVICE_URL"])
HTTPServer((url.hostname or "127.0.0.1", url.port), Handler).serve_forever()
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users"),
    pytest.mark.skipif(not shutil.which("useradd"), reason="needs useradd"),
    pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"needs {PYTHON}, for all users"),
]


@pytest.fixture
def account() -> Iterator[pwd.struct_passwd]:
    subprocess.run(["useradd", "--create-home", ACCOUNT], check=True)
    try:
        yield pwd.getpwnam(ACCOUNT)
    finally:
        subprocess.run(["userdel", "--remove", ACCOUNT], check=True, capture_output=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can enter; pytest's own ones are private."""
    made = Path(tempfile.mkdtemp(prefix="era-system-users-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_server_and_job_belong_to_the_user(folder: Path, account: pwd.struct_passwd) -> None:
    program = folder / "server"
    program.write_text(SERVER)
    program.chmod(0o755)
    extra = (
        f"c.Spawner.cmd = [{str(program)!r}]\n"
        f"c.Authenticator.allowed_users = {{{ACCOUNT!r}}}\n"
        "c.Spawner.args = []\n"
    )
    options = FAST | {"LocalCloud.python": PYTHON}
    with RunningHub(folder, options=options, extra=extra, system_users=True) as hub:
        asked = {"configuration": "gpu-1", "duration": "5m", "max_price": "9"}
        hub.start_server(ACCOUNT, asked)
        process = psutil.Process(hub.until_ready(ACCOUNT)["state"]["pid"])
        assert set(process.uids()) == {account.pw_uid}
        assert process.environ()["HOME"] == account.pw_dir
        assert process.environ()["CUDA_VISIBLE_DEVICES"].isdigit()

        client = hub.client(ACCOUNT)
        script = "import os; print(os.getuid(), os.getcwd(), os.environ['HOME'])"
        job = client.submit(
            models.JobRequest(configuration="gpu-1", duration="1m", value=9_000_000, script=script)
        ).job
        done = until(lambda: _final(client.job(job.id)), 30, "the job")
        assert done.state is JobState.SUCCEEDED, done.message
        uid, directory, home = client.log(job.id).text.split()
        assert int(uid) == account.pw_uid
        assert home == account.pw_dir
        assert directory == done.directory == f"{home}/era-jobs/{job.id}"
        hub.stop_server(ACCOUNT)
        hub.until_gone(ACCOUNT)


def _final(job: models.Job) -> models.Job | None:
    return job if job.state.final else None
