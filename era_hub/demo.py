"""``era-hub demo``: a complete hub on this machine, with nothing up its sleeve.

Everything is in one folder: a ``jupyterhub_config.py`` that could be anybody's (its
only line about ERA Hub is the call of `era_hub.setup`), databases, logs and the
users' homes.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import httpx
import psutil
from rich.console import Console
from rich.panel import Panel

from .client.paths import user_home
from .clouds.gpus import detect
from .ports import free_port, is_free

USERS = ("ann", "bob", "admin")
EXAMPLES = (
    Path(__file__).parent.parent / "examples",  # a checkout
    Path(sys.prefix) / "share" / "era-hub" / "examples",  # an installed distribution
)
START_TIMEOUT = 120
STOP_TIMEOUT = 60

CONFIG = '''\
"""The demo's hub. Written anew at each start of `era-hub demo`."""

import era_hub

c = get_config()  # noqa: F821

c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "jupyterhub_cookie_secret"

# A proxy without Node.js.
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.pid_file = "proxy.pid"

# One password for three users: fine on one's own machine, and nowhere else.
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = open("password").read().strip()
c.Authenticator.allowed_users = {{"ann", "bob"}}
c.Authenticator.admin_users = {{"admin"}}

c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.default_url = "/lab"

era_hub.setup(
    c,
    state_dir={state!r},
    system_users=False,
    gpus={gpus!r},
    # Ctrl-C stops everything, background jobs too.
    options={{"LocalCloud.stop_on_exit": True}},
)
'''


def run(port: int, folder: str, gpus: int | None) -> int:
    """Start the demo and stay until Ctrl-C; returns the exit status."""
    console = Console(highlight=False)
    state = Path(folder).absolute()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_free(port):
        console.print(
            f"Port {port} is taken, perhaps by another demo. Stop it, or choose another port: "
            f"[bold]era-hub demo --port {port + 1}[/]"
        )
        return 1
    password = _prepare(state, port, gpus)
    _adopt_orphans()
    try:
        return _run(console, state, port, password, gpus)
    finally:
        _end_what_is_left()


def _run(console: Console, state: Path, port: int, password: str, gpus: int | None) -> int:
    log = state / "jupyterhub.log"
    with log.open("ab") as output, console.status("Starting JupyterHub and the market …") as status:
        hub = _start(state, output)
        stopper = _Stopper(hub)
        ready = _wait_until_ready(hub, port)
        status.stop()
        if not ready:
            stopper.stop()
            if stopper.asked:
                return 0
            console.print(f"The hub did not start. The end of {log} may say why:")
            console.print("".join(log.read_text(errors="replace").splitlines(True)[-15:]))
            return 1
        console.print(_welcome(port, password, gpus, log))
        status_code = _wait(hub)
    if not stopper.asked:
        console.print(f"The hub has ended by itself ({status_code}); {log} may say why.")
        return 1
    console.print("Stopped. Start again to find everything as it was.")
    return 0


def _prepare(state: Path, port: int, gpus: int | None) -> str:
    """Write the password (once), the configuration and the examples; return the password."""
    secret = state / "password"
    if not secret.exists():
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(9) + "\n")
    hub_port = free_port({port})
    proxy_port = free_port({port, hub_port})
    config = CONFIG.format(
        port=port,
        hub_port=hub_port,
        proxy_port=proxy_port,
        python=sys.executable,
        proxy=str(Path(sys.executable).parent / "configurable-http-proxy"),
        state=str(state),
        gpus=gpus,
    )
    (state / "jupyterhub_config.py").write_text(config)
    examples = next((folder for folder in EXAMPLES if folder.is_dir()), state)
    for user in USERS:
        home = Path(user_home(str(state / "homes"), user))
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for example in examples.glob("train_digits.*"):
            if not (home / example.name).exists():
                shutil.copy(example, home)
    return secret.read_text().strip()


def _start(state: Path, output: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "jupyterhub", "--config=jupyterhub_config.py"],
        cwd=state,
        stdin=subprocess.DEVNULL,
        stdout=output,  # type: ignore[call-overload]
        stderr=subprocess.STDOUT,
        # So that `era` and `python` are there in notebooks and their terminals.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        # Ctrl-C reaches this process only, which then stops the hub in good order.
        start_new_session=True,
    )


def _adopt_orphans() -> None:
    """Let what a hub that dies leaves behind become a child of this process."""
    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _wait(hub: subprocess.Popen[bytes]) -> int:
    """Until the hub ends; takes note meanwhile of adopted processes that have ended."""
    while True:
        try:
            return hub.wait(1)
        except subprocess.TimeoutExpired:
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess, ChildProcessError):
                    if child.pid != hub.pid and child.status() == psutil.STATUS_ZOMBIE:
                        os.waitpid(child.pid, os.WNOHANG)


def _end_what_is_left() -> None:
    """End the processes that the hub did not: none, unless it died."""
    left = psutil.Process().children(recursive=True)
    for each in left:
        with suppress(psutil.NoSuchProcess):
            each.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=10)
    for each in stubborn:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(stubborn, timeout=5)


class _Stopper:
    """Passes Ctrl-C and SIGTERM on to the hub, which stops all it has started."""

    def __init__(self, hub: subprocess.Popen[bytes]) -> None:
        self.hub = hub
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            self.hub.terminate()

    def stop(self) -> None:
        """End the hub; if it takes too long, `_end_what_is_left` does."""
        self.hub.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.hub.wait(STOP_TIMEOUT)


def _wait_until_ready(hub: subprocess.Popen[bytes], port: int) -> bool:
    """Until both hub and market answer through the proxy."""
    deadline = time.monotonic() + START_TIMEOUT
    urls = [
        f"http://127.0.0.1:{port}/hub/health",
        f"http://127.0.0.1:{port}/services/era/api/v1/health",
    ]
    with httpx.Client(trust_env=False, timeout=5) as client:
        while hub.poll() is None and time.monotonic() < deadline:
            try:
                if all(client.get(url).status_code == 200 for url in urls):
                    return True
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
    return False


def _welcome(port: int, password: str, gpus: int | None, log: Path) -> Panel:
    found = detect(gpus)
    kind = "simulated, since no real one was found" if gpus is None else "simulated, as you asked"
    if not found.simulated:
        kind = ", ".join(sorted({gpu.name for gpu in found.gpus}))
    return Panel.fit(
        f"Open      [bold]http://127.0.0.1:{port}[/]\n"
        f"Log in as [bold]ann[/], [bold]bob[/] or [bold]admin[/]\n"
        f"Password  [bold]{password}[/]\n\n"
        f"GPUs      {len(found.gpus)} ({kind})\n"
        f"Try       a notebook with a GPU, then train_digits.ipynb\n"
        f"Note      all run as your own account here; nothing separates them\n"
        f"Log       {log}\n"
        "Stop      Ctrl-C",
        title="ERA Hub demo",
    )
