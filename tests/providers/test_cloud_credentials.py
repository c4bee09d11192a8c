"""Vertex AI with each kind of Google's credentials, against stand-ins for its two hosts; which deployments of Azure sign in."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import litellm
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bridge_worker.backends.litellm import exceptions, gateway_config
from bridge_worker.config.source import load_config
from bridge_worker.providers.facts import Package
from tests.support.gateway_config import write
from tests.support.provider_formats import Completion, Gemini
from tests.support.worker import Json, Worker

TOKEN = "ya29.of-the-stand-in-0001"


class Google:
    """``grants`` are the forms that arrived at the token endpoint, ``keys`` the credentials that arrived at the model."""

    def __init__(self) -> None:
        self.grants: list[dict[str, str]] = []
        self.keys: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/token":
                    owner.grants.append({name: values[0] for name, values in parse_qs(body.decode()).items()})
                    kind = "urn:ietf:params:oauth:token-type:access_token"
                    reply: Any = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer", "issued_token_type": kind}
                else:
                    owner.keys.append(self.headers["authorization"])
                    reply = Gemini().whole(Completion("from Vertex"))
                data = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def google() -> Iterator[Google]:
    google = Google()
    yield google
    google.server.shutdown()
    google.server.server_close()


def service_account(google: Google, _: Path) -> dict[str, Any]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "type": "service_account",
        "project_id": "a-project",
        "private_key_id": "1",
        "private_key": key.private_bytes(*form).decode(),
        "client_email": "worker@a-project.iam.gserviceaccount.com",
        "token_uri": f"{google.origin}/token",
    }


def named_account(google: Google, folder: Path) -> dict[str, Any]:
    return service_account(google, folder) | {"client_email": "named@a-project.iam.gserviceaccount.com"}


def workload_identity(google: Google, folder: Path) -> dict[str, Any]:
    (folder / "subject").write_text("token-of-the-cluster")
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{google.origin}/token",
        "credential_source": {"file": str(folder / "subject")},
    }


GRANTS = {
    service_account: ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
    named_account: ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
    workload_identity: ("subject_token", "token-of-the-cluster"),
}


def test_vertex_ai_works_with_each_kind_of_credentials(google: Google, tmp_path: Path) -> None:
    """The service account as default credentials of the environment, the others as files that a deployment names."""
    models = []
    for kind in GRANTS:
        file = tmp_path / f"{kind.__name__}.json"
        file.write_text(json.dumps(kind(google, tmp_path)))
        params = {"model": "vertex_ai/gemini-2.5-flash", "vertex_project": "a-project", "vertex_location": "europe-west1"}
        params |= {"api_base": f"{google.origin}/model"}
        if kind is not service_account:
            params["vertex_credentials"] = str(file)
        models.append({"model_name": kind.__name__, "litellm_params": params})
    path = write(tmp_path / "gateway.yaml", {"model_list": models})
    path.chmod(0o600)
    google.grants.clear()
    google.keys.clear()
    variables = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "service_account.json")}
    with Worker("--config", str(path), env=variables) as worker:
        for kind, (member, value) in GRANTS.items():
            assert worker.chat(kind.__name__)["content"] == "from Vertex"
            assert google.grants[-1][member] == value
    assert google.keys == [f"Bearer {TOKEN}"] * 3


def test_credentials_that_are_not_there_are_the_operators_fault_and_not_the_bridges(google: Google, tmp_path: Path) -> None:
    params = {"model": "vertex_ai/gemini-2.5-flash", "vertex_project": "p", "api_base": f"{google.origin}/model"}
    models = [
        {"model_name": "default", "litellm_params": params},
        {"model_name": "file", "litellm_params": params | {"vertex_credentials": str(tmp_path / "none.json")}},
    ]
    path = write(tmp_path / "gateway.yaml", {"model_list": models})
    path.chmod(0o600)
    variables = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none.json")}
    with Worker("--config", str(path), env=variables) as worker:
        for name in ("default", "file"):
            error = worker.call("chat", {"model": name, "messages": [{"role": "user", "content": "hi"}]})["error"]
            assert error["data"]["kind"] == "authentication", error
            assert "GOOGLE_APPLICATION_CREDENTIALS" in error["message"] or "vertex_credentials" in error["message"]
            assert str(tmp_path) not in json.dumps(error)


def test_a_config_for_vertex_ai_without_its_package_is_reported_with_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"model": "vertex_ai/gemini-2.5-flash", "vertex_project": "p"}
    path = write(tmp_path / "gateway.yaml", {"model_list": [{"model_name": "a", "litellm_params": params}]})
    path.chmod(0o600)
    gateway = load_config(str(path)).gateway
    assert gateway is not None
    assert list(gateway_config._without_package(gateway)) == []
    missing = Package("no_such_module_4711.auth", "omni-bridge[vertex]")
    monkeypatch.setattr(gateway_config.facts, "PACKAGES", {"vertex_ai": missing})
    (line,) = map(str, gateway_config._without_package(gateway))
    assert line.startswith(f"{path}:")
    assert line.endswith("no_such_module_4711.auth, which is not installed; pip install 'omni-bridge[vertex]'")
    error = ModuleNotFoundError("No module named 'google'", name="google")
    assert exceptions.from_litellm(error, model="a").message.endswith("not installed here; pip install 'omni-bridge[vertex]'")


ENTRA = {"tenant_id": "t", "client_id": "c", "client_secret": "s"}


@pytest.mark.parametrize(
    ("params", "settings", "environment", "is_named"),
    [
        (ENTRA, {}, {}, True),
        ({}, {}, {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}, True),
        ({"client_id": "c", "azure_username": "u", "azure_password": "p"}, {}, {}, True),
        ({}, {"enable_azure_ad_token_refresh": True}, {}, True),
        (ENTRA | {"api_key": "k"}, {}, {}, False),
        (ENTRA, {}, {"AZURE_API_KEY": "k"}, False),
        ({"azure_ad_token": "e"}, {}, {}, False),
        ({}, {}, {}, False),
    ],
)
def test_a_deployment_of_azure_that_signs_in_needs_a_package(
    params: Json, settings: Json, environment: Json, is_named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(litellm, "enable_azure_ad_token_refresh", settings.get("enable_azure_ad_token_refresh"))
    made = {"model": "azure/gpt-4o", "api_base": "https://house.openai.azure.com", **params}
    config = {"model_list": [{"model_name": "a", "litellm_params": made}], "litellm_settings": settings}
    path = write(tmp_path / "gateway.yaml", config)
    path.chmod(0o600)
    gateway = load_config(str(path)).gateway
    assert gateway is not None
    monkeypatch.setattr(gateway_config, "find_spec", lambda name: None)
    lines = [str(one) for one in gateway_config._without_package(gateway)]
    assert ["azure.identity, which is not installed; pip install 'azure-identity'" in line for line in lines] == [True] * is_named
