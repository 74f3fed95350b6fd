"""Answers and results of suites on disk, one JSON file each, so that no model is asked the same thing twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ladder.data.prompts import Prompt
from ladder.exam.exam import Certainty, Outputs, Probe, PromptSet
from ladder.system.files import save_text


@dataclass(frozen=True)
class ModelFiles:
    """A folder of such files. It may be deleted whenever nothing is examined.

    Args:
        folder: where the files lie.
        conditions: what the contents depend on beside the model, as plain JSON.
    """

    folder: Path
    conditions: Mapping[str, Any]

    def read(self, digest: str) -> dict[str, Any] | None:
        """A model's file; None where it cannot be read, or is of another model or other conditions."""
        try:
            stored: dict[str, Any] = json.loads(self._path(digest).read_text(encoding="utf-8"))
            same = (stored["digest"], stored["conditions"]) == (digest, dict(self.conditions))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return stored if same else None

    def write(self, digest: str, contents: Mapping[str, Any]) -> None:
        """Replace a model's file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {"digest": digest, "conditions": dict(self.conditions), **contents}
        save_text(self._path(digest), json.dumps(document, ensure_ascii=False))

    def _path(self, digest: str) -> Path:
        written = json.dumps(self.conditions, sort_keys=True).encode()
        return self.folder / f"{digest[:32]}-{hashlib.sha256(written).hexdigest()[:16]}.json"


class AnswerCache(ModelFiles):
    """Stored generations of models under one set of conditions: tokenizer and template, decoding, libraries."""

    def known(self, digest: str, prompt_set: PromptSet) -> Outputs:
        """A model's stored generations for a prompt set."""
        stored, readout = self._stored(digest), prompt_set.readout
        return Outputs(
            digest,
            {prompt: stored.texts[prompt] for prompt in prompt_set.prompts if prompt in stored.texts},
            {prompt: stored.certainty[prompt] for prompt in prompt_set.prompts if prompt in stored.certainty},
            {probe: stored.read[probe] for probe in prompt_set.probes if probe in stored.read},
            readings={place: told for place, told in stored.readings.items() if readout and place[0] == readout.key},
            masses={probe: stored.masses[probe] for probe in prompt_set.probes if probe in stored.masses},
        )

    def keep(self, outputs: Outputs) -> None:
        """Remember outputs beside what was known of the model before."""
        everything = outputs.with_known(self._stored(outputs.digest))
        texts = [
            {"asked": _fields(prompt), "said": said, "certainty": asdict(everything.certainty[prompt])}
            for prompt, said in everything.texts.items()
        ]
        masses = {probe: {"mass": mass} for probe, mass in everything.masses.items()}
        read = [
            {"asked": _fields(probe), "said": said, **masses.get(probe, {})} for probe, said in everything.read.items()
        ]
        readings = [
            {"by": key, "asked": _fields(prompt), "found": told} for (key, prompt), told in everything.readings.items()
        ]
        self.write(outputs.digest, {"texts": texts, "read": read} | ({"readings": readings} if readings else {}))

    def _stored(self, digest: str) -> Outputs:
        """Everything in the file; nothing where there is none, or it is of an older form."""
        stored = self.read(digest)
        if stored is None:
            return Outputs(digest)
        try:
            texts = {Prompt(**entry["asked"]): str(entry["said"]) for entry in stored["texts"]}
            certainty = {Prompt(**entry["asked"]): Certainty(**entry["certainty"]) for entry in stored["texts"]}
            entries = [(_probe(entry["asked"]), entry) for entry in stored["read"]]
            masses = {probe: float(entry["mass"]) for probe, entry in entries if "mass" in entry}
            # Choices of before their masses were kept are asked again.
            read = {probe: str(entry["said"]) for probe, entry in entries if probe.kind != "choice" or probe in masses}
            readings = {
                (str(entry["by"]), Prompt(**entry["asked"])): tuple(map(tuple, entry["found"]))
                for entry in stored.get("readings", ())
            }
        except (KeyError, TypeError):
            return Outputs(digest)
        return Outputs(digest, texts, certainty, read, readings=readings, masses=masses)


def _fields(asked: Prompt | Probe) -> dict[str, Any]:
    """As older versions of ladder read it too, where it is no conversation."""
    return {name: value for name, value in asdict(asked).items() if value or name != "conversation"}


def _probe(fields: Mapping[str, Any]) -> Probe:
    return Probe(**{**fields, "options": tuple(fields["options"])})


class SuiteCache(ModelFiles):
    """What models reached in one evaluation under some conditions."""

    def known(self, digest: str) -> dict[str, Any] | None:
        """A model's results; None where there are none."""
        results = (self.read(digest) or {}).get("results")
        return results if isinstance(results, dict) else None

    def keep(self, digest: str, results: Mapping[str, Any]) -> None:
        """Remember a model's results."""
        self.write(digest, {"results": dict(results)})
