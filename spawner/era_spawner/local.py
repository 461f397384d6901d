"""EraLocalSpawner: servers as processes on the hub's machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jupyterhub.spawner import LocalProcessSpawner
from traitlets import Bool, Unicode, default

from era_hub.client.paths import user_home

from .mixin import EraSpawnerMixin


class EraLocalSpawner(EraSpawnerMixin, LocalProcessSpawner):
    """Launches servers on reserved GPUs as processes on the hub's machine."""

    system_users = Bool(
        help="""Run servers as the system accounts of the same names, in their home directories.

        Needs root, and is the default then. Otherwise all servers run as the hub's
        own account with homes under `home_root`: fit for trying out and for users
        who trust each other, as nothing separates them. Must be the same as
        ``LocalCloud.system_users``. For example::

            c.EraLocalSpawner.system_users = False
        """,
    ).tag(config=True)

    home_root = Unicode(
        "era-homes",
        help="""Directory of the users' homes where servers don't run as system accounts.

        A relative path counts from the hub's working directory. Must be the same
        place as ``LocalCloud.home_root``, so that jobs find the files of notebooks.
        For example::

            c.EraLocalSpawner.home_root = "/srv/era/homes"
        """,
    ).tag(config=True)

    # Said once per process, not at every spawn.
    _warned = False

    @default("system_users")
    def _default_system_users(self) -> bool:
        return os.geteuid() == 0

    @property
    def home(self) -> Path:
        """The user's home where servers don't run as system accounts."""
        return user_home(Path(self.home_root).absolute(), self.user.name)

    async def start(self) -> Any:
        """Make the home ready before anything is paid for, then start."""
        if not self.system_users:
            self._warn_once()
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return await super().start()

    def _warn_once(self) -> None:
        if not EraLocalSpawner._warned:
            EraLocalSpawner._warned = True
            self.log.warning(
                "All servers run as the hub's own account (EraLocalSpawner.system_users is "
                "off): nothing isolates users from each other, from the GPUs of others or "
                "from the hub. Use this to try things out and among people who trust each other."
            )

    def make_preexec_fn(self, name: str) -> Callable[[], None]:
        """What the new process does first: become the user, and go to the home."""
        if self.system_users:
            change: Callable[[], None] = super().make_preexec_fn(name)
            return change
        return partial(os.chdir, self.home)

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Add the variables of the account."""
        if self.system_users:
            complete: dict[str, str] = super().user_env(env)
            return complete
        env.update(USER=self.user.name, HOME=str(self.home))
        env.setdefault("SHELL", os.environ.get("SHELL", "/bin/sh"))
        return env

    def get_args(self) -> list[str]:
        """Arguments of the server's command."""
        args = list(super().get_args())
        # The notebook server refuses to run as root unless told so.
        if not self.system_users and os.geteuid() == 0 and "--allow-root" not in args:
            args.append("--allow-root")
        return args

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Certificates go to the account that runs the server."""
        if self.system_users:
            moved: dict[str, str] = await super().move_certs(paths)
            return moved
        return paths
