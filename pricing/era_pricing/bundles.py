"""Bundles without a name: configurations that are called by their contents.

The name of such a configuration is its contents in one fixed notation, such as
``cpu=500m,nvidia.com/gpu=4``: the same for everybody who asks for the same,
however it was written. So whoever meets the name knows what is meant, also
where only a reservation is left that has it.
"""

from __future__ import annotations

from collections.abc import Mapping

from era_pricing.configurations import Configuration
from era_pricing.notation import read_quantity


def bundle(resources: Mapping[str, str | float]) -> Configuration:
    """The configuration of a bundle that is described by its contents alone.

    Parameters
    ----------
    resources
        Kubernetes quantities, as texts or numbers, by resource; at least one.

    Returns
    -------
    Configuration
        The same for equal contents, however they are written.

    Raises
    ------
    ValueError
        If there is no resource, or a name or quantity cannot be read.

    Examples
    --------
    >>> bundle({"nvidia.com/gpu": 4, "cpu": "0.5"}).name
    'cpu=500m,nvidia.com/gpu=4'
    """
    if not resources:
        raise ValueError("a bundle must have at least one resource, such as {'nvidia.com/gpu': 1}")
    texts = {}
    for resource in sorted(resources):
        try:
            texts[resource] = read_quantity(resource, resources[resource])
        except ValueError as error:
            raise ValueError(f"{resource} {error}") from None
    return Configuration(",".join(f"{name}={text}" for name, text in texts.items()), texts)


def bundle_of(name: str) -> Configuration | None:
    """The bundle whose configuration has a name, or None if `name` is no bundle's.

    Examples
    --------
    >>> dict(bundle_of("cpu=500m,nvidia.com/gpu=4").resources)
    {'cpu': '500m', 'nvidia.com/gpu': '4'}
    >>> bundle_of("cpu=0.5"), bundle_of("gpu-8")
    (None, None)
    """
    try:
        found = bundle(dict(part.split("=", 1) for part in name.split(",")))
    except ValueError:
        return None
    return found if found.name == name else None
