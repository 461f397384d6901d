"""Times, amounts and resources in words, as plain text and as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from markupsafe import Markup

from era_hub.models import MICRO, format_credits

FAR = timedelta(days=6)
"""From here on a weekday alone could be misread."""

RESOURCES = {
    "nvidia.com/gpu": ("GPU", "GPUs"),
    "cpu": ("CPU", "CPUs"),
    "memory": ("memory", "memory"),
}
UNITS = {"Ki": "KiB", "Mi": "MiB", "Gi": "GiB", "Ti": "TiB", "M": "MB", "G": "GB", "T": "TB"}


def when(time: datetime) -> str:
    """``Tue 22:10 (UTC+02:00)`` in the hub's time zone; with the date if far away."""
    local = time.astimezone()
    offset = local.strftime("%z")
    day = "%a %d %b" if abs(time - datetime.now(UTC)) > FAR else "%a"
    return f"{local.strftime(f'{day} %H:%M')} (UTC{offset[:3]}:{offset[3:5]})"


def when_html(time: datetime) -> Markup:
    """The same as an element that scripts put on the reader's clock."""
    stamp = time.astimezone(UTC).isoformat(timespec="seconds")
    return Markup('<time class="era-time" datetime="{}">{}</time>').format(stamp, when(time))


def credits(micro: int) -> str:
    """Two decimals, but never a positive amount as 0.00: ``2.08``."""
    cents = round(micro / (MICRO // 100))
    return f"{cents / 100:.2f}" if cents or not micro else format_credits(micro)


def count(number: int, one: str = "GPU") -> str:
    """``1 GPU``, ``2 GPUs``."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def resources(quantities: Mapping[str, str]) -> str:
    """``2 GPUs, 8 CPUs, 64 GiB memory`` from quantities in Kubernetes notation."""
    known = [name for name in RESOURCES if quantities.get(name, "0") != "0"]
    others = [name for name in quantities if name not in RESOURCES]
    return ", ".join(_resource(name, quantities[name]) for name in [*known, *others])


def _resource(name: str, quantity: str) -> str:
    one, many = RESOURCES.get(name, (name, name))
    for suffix, unit in UNITS.items():
        if quantity.endswith(suffix):
            quantity = f"{quantity.removesuffix(suffix)} {unit}"
            break
    return f"{quantity} {one if quantity == '1' else many}"
