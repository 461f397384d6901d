"""Where a user's files lie when the service's own account runs everything."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote


def user_home(home_root: str | Path, username: str) -> Path:
    """Home directory of a user below `home_root`.

    The name is percent-encoded, so that no name can leave `home_root` and no two
    names share a directory.

    Parameters
    ----------
    home_root : str or Path
        Directory that holds the homes.
    username : str
        JupyterHub user name.

    Returns
    -------
    Path
        The directory; it need not exist.

    Raises
    ------
    ValueError
        If the name is empty or not valid Unicode.
    """
    if not username:
        raise ValueError("a user name may not be empty")
    safe = quote(username, safe="")
    if safe in (".", ".."):
        safe = safe.replace(".", "%2E")
    return Path(home_root) / safe
