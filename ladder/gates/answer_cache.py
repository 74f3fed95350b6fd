"""Answers on disk, so that no model is asked the same thing twice: a parent answered most of it as a child.

One JSON file holds what one model said under one set of conditions: its digest, who put the questions into ids, the
decoding, and the libraries. The folder may be deleted whenever nothing is examined.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ladder.gates.paper import Certainty, Paper, Reply
from ladder.gates.probes import Probe, Prompt
from ladder.models.save import save_text


@dataclass(frozen=True)
class AnswerCache:
    """What models said under some conditions.

    Args:
        folder: where the files lie.
        conditions: what answers depend on beside model and question, as plain JSON.
    """

    folder: Path
    conditions: Mapping[str, Any]

    def known(self, digest: str, paper: Paper) -> Reply:
        """What a model is known to say to a paper."""
        stored = self._stored(digest)
        return Reply(
            digest,
            {prompt: stored.texts[prompt] for prompt in paper.prompts if prompt in stored.texts},
            {prompt: stored.certainty[prompt] for prompt in paper.prompts if prompt in stored.certainty},
            {probe: stored.read[probe] for probe in paper.probes if probe in stored.read},
        )

    def keep(self, reply: Reply) -> None:
        """Remember a reply beside what was known of the model before."""
        everything = reply.with_known(self._stored(reply.digest))
        document = {
            "digest": reply.digest,
            "conditions": dict(self.conditions),
            "texts": [
                {"asked": asdict(prompt), "said": said, "certainty": asdict(everything.certainty[prompt])}
                for prompt, said in everything.texts.items()
            ],
            "read": [{"asked": asdict(probe), "said": said} for probe, said in everything.read.items()],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        save_text(self._path(reply.digest), json.dumps(document, ensure_ascii=False))

    def _stored(self, digest: str) -> Reply:
        """Everything in the file; nothing where it cannot be read, or holds another thing."""
        try:
            stored = json.loads(self._path(digest).read_text(encoding="utf-8"))
            if (stored["digest"], stored["conditions"]) != (digest, dict(self.conditions)):
                return Reply(digest)
            texts = {Prompt(**entry["asked"]): str(entry["said"]) for entry in stored["texts"]}
            certainty = {Prompt(**entry["asked"]): Certainty(**entry["certainty"]) for entry in stored["texts"]}
            read = {_probe(entry["asked"]): str(entry["said"]) for entry in stored["read"]}
        except (OSError, ValueError, KeyError, TypeError):
            return Reply(digest)
        return Reply(digest, texts, certainty, read)

    def _path(self, digest: str) -> Path:
        return file_of(self.folder, digest, self.conditions)


def file_of(folder: Path, digest: str, conditions: Mapping[str, Any]) -> Path:
    """The file for what one model said under some conditions."""
    written = json.dumps(conditions, sort_keys=True).encode()
    return folder / f"{digest[:32]}-{hashlib.sha256(written).hexdigest()[:16]}.json"


def _probe(fields: Mapping[str, Any]) -> Probe:
    return Probe(**{**fields, "options": tuple(fields["options"])})
