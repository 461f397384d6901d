"""JupyterHub spawners that launch servers on reserved GPUs.

`EraLocalSpawner` starts servers as processes on this machine, `kube.EraKubeSpawner` as pods
of a Kubernetes cluster; that one needs KubeSpawner, so it is imported from its own module.
Everything about the market (form, bid, claim, environment, giving back) is in
`EraSpawnerMixin`, so that it can be put in front of other spawners.
"""

from .local import EraLocalSpawner
from .mixin import EraSpawnerMixin

__all__ = ["EraLocalSpawner", "EraSpawnerMixin"]
