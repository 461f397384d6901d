"""A Kubernetes API server by itself: etcd and kube-apiserver, and nothing that acts.

Where no controller and no scheduler runs, thousands of nodes and pods that do not exist can
be written down, and stay as they are written.
"""

from __future__ import annotations

import secrets
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.running_hub import free_ports, until

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: here, cluster: {{server: "{url}", insecure-skip-tls-verify: true}}}}]
users: [{{name: admin, user: {{token: "{token}"}}}}]
contexts: [{{name: here, context: {{cluster: here, user: admin}}}}]
current-context: here
"""
# What would mark nodes as not ready, or wait for accounts, until a controller comes.
LEFT_OUT = "ServiceAccount,TaintNodesByCondition,DefaultTolerationSeconds"


@contextmanager
def open_api_server(programs: str = "") -> Iterator[str]:
    """Start one on ports of its own; yields the path of a kubeconfig of its administrator.

    Parameters
    ----------
    programs : str
        Folder of ``etcd`` and ``kube-apiserver``, besides PATH.
    """
    folder = Path(tempfile.mkdtemp(prefix="era-api-"))
    running: list[subprocess.Popen[bytes]] = []
    try:
        port, client, peer = free_ports(3)
        running.append(_start(folder, _etcd(folder, client, peer, programs)))
        token = secrets.token_hex(16)
        running.append(_start(folder, _server(folder, port, client, token, programs)))
        url = f"https://127.0.0.1:{port}"
        config = folder / "kubeconfig"
        config.touch(mode=0o600)
        config.write_text(KUBECONFIG.format(url=url, token=token))
        _wait(url, token, folder)
        yield str(config)
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _etcd(folder: Path, client: int, peer: int, programs: str) -> list[str]:
    own, others = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    return [
        _find("etcd", programs),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={own}",
        f"--advertise-client-urls={own}",
        f"--listen-peer-urls={others}",
        f"--initial-advertise-peer-urls={others}",
        f"--initial-cluster=default={others}",
        "--unsafe-no-fsync",
    ]


def _server(folder: Path, port: int, etcd: int, token: str, programs: str) -> list[str]:
    key = folder / "accounts.key"
    key.touch(mode=0o600)
    key.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    tokens = folder / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text(f"{token},admin,admin,system:masters\n")
    return [
        _find("kube-apiserver", programs),
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.0.0.0/24",
        f"--disable-admission-plugins={LEFT_OUT}",
    ]


def _find(name: str, programs: str) -> str:
    found = shutil.which(name, path=programs) if programs else None
    found = found or shutil.which(name)
    if found is None:
        raise click.ClickException(f"no {name}: say with --programs in which folder it is")
    return found


def _start(folder: Path, command: list[str]) -> subprocess.Popen[bytes]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _wait(url: str, token: str, folder: Path) -> None:
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    with httpx.Client(verify=anyone, headers={"Authorization": f"Bearer {token}"}) as asked:

        def ready() -> bool:
            try:
                return asked.get(f"{url}/readyz").status_code == 200
            except httpx.HTTPError:
                return False

        until(ready, 90, f"the API server; see {folder}/kube-apiserver.log")
