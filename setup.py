"""Packaging of the one distribution, ``era-hub``.

The four packages live in folders named after their part of the system, so the
mapping from package to folder is spelled out here; tool settings are in
``pyproject.toml``.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
FOLDERS = {
    "era_hub": "era_hub",
    "era_pricing": "pricing/era_pricing",
    "era_spawner": "spawner/era_spawner",
    "era_extension": "extension/era_extension",
}
LAB = "extension/era_extension/lab"
LABEXTENSION = "share/jupyter/labextensions/era-extension"


def version() -> str:
    scope: dict[str, str] = {}
    exec((ROOT / "era_hub/_version.py").read_text(), scope)
    return scope["__version__"]


def packages() -> list[str]:
    found = []
    for name, folder in FOLDERS.items():
        found.append(name)
        found += [f"{name}.{sub}" for sub in find_packages(folder)]
    return found


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*.*"))


# What `era_pricing` imports; the notebook side does without it.
ENGINE = ["numpy>=1.26,<3", "scipy>=1.13,<2"]
KUBE = ["jupyterhub-kubespawner>=7.1,<8", "kubernetes-asyncio>=30,<37"]
POSTGRES = ["psycopg[binary]>=3.1,<4"]
CLIENT = ["httpx>=0.27,<1", "pydantic>=2.7,<3", "click>=8.1,<9", "rich>=13,<16"]
EXTRAS = {
    # The JupyterHub side: service, local spawner, local jobs.
    "hub": [
        *ENGINE,
        "jupyterhub>=5.4,<7",
        "sqlalchemy>=2.0.42,<3",
        "alembic>=1.13,<2",
        "tornado>=6.4,<7",
        "traitlets>=5.14,<6",
        "jinja2>=3.1,<4",
        "psutil>=5.9,<8",
        "nvidia-ml-py>=12.535,<14",
        "prometheus-client>=0.20,<1",
        "cryptography>=42",
    ],
    # On a Kubernetes cluster: the spawner, and jobs.
    "kube": KUBE,
    # A PostgreSQL database in place of SQLite.
    "postgres": POSTGRES,
    # The simulator, `era-sim`.
    "sim": [
        *ENGINE,
        "plotly>=6,<8",
        "dask[distributed]>=2024.8",
        "tqdm>=4.66,<5",
        "pyyaml>=6,<7",
    ],
    # The notebook side: widget and magics.
    "notebook": ["anywidget>=0.9.13,<1", "ipywidgets>=8.1,<9", "ipython>=8.20", "tqdm>=4.66,<5"],
    # What `era-hub demo` starts besides: a hub proxy without Node.js, JupyterLab, the example.
    "demo": ["configurable-http-proxy>=0.4,<0.5", "jupyterlab>=4.2,<5", "scikit-learn>=1.4,<2"],
}
EXTRAS["test"] = [
    *KUBE,
    *POSTGRES,
    "jupyterhub-fancy-profiles>=0.5,<1",
    "pytest>=8.2,<10",
    "pytest-asyncio>=1.0,<2",
    "pytest-xdist>=3.5,<4",
    "hypothesis>=6.100,<7",
    "playwright>=1.44,<2",
    "jsonschema>=4.21,<5",
    "openapi-spec-validator>=0.7,<1",
    "schemathesis>=4,<5",
    # Helm's own library, which is not made for every machine; tests say where they miss it.
    "helm-python-sdk>=0.2,<0.3; platform_machine != 'aarch64'",
    "kubernetes-validate>=1.37,<2",
    "setuptools>=70.1",
    "ruff>=0.5",
    "mypy>=1.10,<3",
    "import-linter>=2.16,<3",
    "pre-commit>=3.7,<5",
]

setup(
    name="era-hub",
    version=version(),
    description="A market for GPU time inside JupyterHub",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=packages(),
    package_dir={**FOLDERS},
    package_data={
        "era_hub": ["client/*.js", "web/templates/*", "web/static/*", "store/migrations/*.mako"],
        "era_pricing": ["language.schema.json", "simulator/static/*"],
        "era_spawner": ["templates/*", "static/*"],
        "era_extension": ["static/*", "lab/*.json", "lab/labextension/**/*"],
    },
    data_files=[
        ("share/era-hub/examples", ["examples/train_digits.ipynb", "examples/train_digits.py"]),
        # Where Jupyter looks for extensions. An editable install leaves these out; the
        # Makefile links them instead.
        ("etc/jupyter/jupyter_server_config.d", [f"{LAB}/era_extension.json"]),
        (LABEXTENSION, [f"{LAB}/labextension/package.json"]),
        (f"{LABEXTENSION}/static", files(f"{LAB}/labextension/static")),
    ],
    install_requires=CLIENT,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "era-hub = era_hub.cli:main",
            "era = era_extension.cli:main",
            "era-sim = era_pricing.simulator.cli:main",
        ],
        "jupyterhub.spawners": [
            "era-local = era_spawner.local:EraLocalSpawner",
            "era-kube = era_spawner.kube:EraKubeSpawner",
        ],
        "era.algorithms": [
            "basic-econ = era_pricing.algorithms.basic_econ:BasicEcon",
            "first-fit = era_pricing.algorithms.first_fit:FirstFit",
            "on-demand = era_pricing.algorithms.on_demand:OnDemand",
            "exponential = era_pricing.algorithms.exponential:Exponential",
            "bid-price = era_pricing.algorithms.bid_price:BidPrice",
        ],
        "era.predictors": [
            "prior = era_pricing.predictors.prior:Prior",
            "spread = era_pricing.predictors.spread:Spread",
            "lp = era_pricing.predictors.lp:LP",
            "blend = era_pricing.predictors.blend:Blend",
        ],
    },
)
