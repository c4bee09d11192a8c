"""``omni-bridge schema``: the wire as JSON Schema. Owns the printing; refuses to know what is in it."""

from __future__ import annotations

import json

import click

from bridge_worker.schema.messages import json_schema


@click.command()
def schema() -> None:
    """Print the JSON Schema of every message."""
    click.echo(json.dumps(json_schema(), indent=2))
