"""The request ``credentials/get``, which the worker sends to a client that has declared it.

Owns the types of the capability, the params and the result. Refuses to know when it is sent, and where a key goes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bridge_worker.schema.base import Closed, Name, Open

Secret = Annotated[str, Field(min_length=1, max_length=65_536)]


class CredentialsCapability(Open):
    """The client responds to ``credentials/get`` within ``timeout_ms``: for these providers, or for each that needs a key."""

    providers: list[Name] | None = None
    timeout_ms: Annotated[int, Field(gt=0, le=600_000)] | None = None


class ClientCapabilities(Open):
    credentials: CredentialsCapability | None = None


class CredentialsGetParams(Closed):
    """``rejected``: the provider has rejected the last key. ``base_url``: the operator's host for it."""

    provider: str
    reason: Literal["missing", "rejected"]
    base_url: str | None = None


class CredentialsGetResult(Closed):
    """``api_key``, or the members of a cloud. An ``api_key`` of null: no key is needed."""

    api_key: Secret | None = None
    base_url: Secret | None = None
    api_version: Secret | None = None
    azure_ad_token: Secret | None = None
    aws_access_key_id: Secret | None = None
    aws_secret_access_key: Secret | None = None
    aws_session_token: Secret | None = None
    aws_region_name: Secret | None = None
    vertex_credentials: Secret | None = None
    vertex_project: Secret | None = None
    vertex_location: Secret | None = None
    expires_in_seconds: Annotated[float, Field(ge=0)] | None = None
