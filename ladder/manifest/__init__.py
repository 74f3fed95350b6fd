"""Manifests: what one step of the ladder shall do. Pydantic only; nothing here imports torch, Ray or MLflow."""

from ladder.manifest.json_schema import json_schema
from ladder.manifest.load import load_manifest
from ladder.manifest.names import Name, Reference
from ladder.manifest.request import Request, discover, read_each, read_request, read_requests
from ladder.manifest.schema import Manifest

__all__ = [
    "Manifest",
    "Name",
    "Reference",
    "Request",
    "discover",
    "json_schema",
    "load_manifest",
    "read_each",
    "read_request",
    "read_requests",
]
