"""The service's configuration on Kubernetes: what the chart's values say.

Later settings win: those of this file, then `config`, then the snippets of `extraConfig`
in the order of their names.
"""

import json
import os
from pathlib import Path

c = get_config()
here = Path(__file__).parent

# Where the other replicas reach this one; an IPv6 address has brackets in a URL.
pod = os.environ["POD_IP"]
c.EraHub.address = f"http://[{pod}]:8080" if ":" in pod else f"http://{pod}:8080"

c.EraHub.state_dir = "/var/lib/era-hub"
if "ERA_DATABASE_URL" in os.environ:
    c.EraHub.db_url = os.environ["ERA_DATABASE_URL"]

for section, settings in json.loads((here / "config.json").read_text()).items():
    c[section].update(settings)

for snippet in sorted(here.glob("extra-*.py")):
    load_subconfig(str(snippet))
