"""Warnings inside JupyterLab: a server extension, and the front end that asks it.

The browser asks the notebook's own server, and that server asks the market: the token
stays on the server, and under subdomains the page could not reach the market at all.
"""

from __future__ import annotations

LABEXTENSION = "era-extension"
"""Name of the front end, in `labextension/`; a prebuilt extension written by hand."""
