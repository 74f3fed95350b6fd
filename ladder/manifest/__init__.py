"""Manifests: what one step of the ladder shall do. Pydantic only; nothing here imports torch, Ray or MLflow."""

from ladder.manifest.effective import contexts
from ladder.manifest.explain import json_schema
from ladder.manifest.files import dream_prompts, named_files
from ladder.manifest.names import FAMILY, Name, Reference, run_name
from ladder.manifest.request import Request, discover, load_manifest, read_each, read_request, read_requests, validated
from ladder.manifest.schema import (
    GATES,
    Architecture,
    Budget,
    ControlTokens,
    Data,
    Decoding,
    Devices,
    Dreams,
    Gates,
    GeneralizeGate,
    LmEval,
    Lora,
    Manifest,
    MetricGate,
    RecallGate,
    Refusals,
    RequiredText,
    Runtime,
    ToneGate,
    TrainingParams,
)
from ladder.manifest.syntax import flat, unequal
from ladder.manifest.words import modern, old_spelling

__all__ = [
    "FAMILY",
    "GATES",
    "Architecture",
    "Budget",
    "ControlTokens",
    "Data",
    "Decoding",
    "Devices",
    "Dreams",
    "Gates",
    "GeneralizeGate",
    "LmEval",
    "Lora",
    "Manifest",
    "MetricGate",
    "Name",
    "RecallGate",
    "Reference",
    "Refusals",
    "Request",
    "RequiredText",
    "Runtime",
    "ToneGate",
    "TrainingParams",
    "contexts",
    "discover",
    "dream_prompts",
    "flat",
    "json_schema",
    "load_manifest",
    "modern",
    "named_files",
    "old_spelling",
    "read_each",
    "read_request",
    "read_requests",
    "run_name",
    "unequal",
    "validated",
]
