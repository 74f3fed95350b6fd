"""Answers on disk, so that no model is asked the same thing twice: a parent answered most of it as a child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ladder.gates.model_files import ModelFiles
from ladder.gates.paper import Certainty, Paper, Reply
from ladder.gates.probes import Probe, Prompt


class AnswerCache(ModelFiles):
    """What models said under some conditions: who put the questions into ids, the decoding, the libraries."""

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
        texts = [
            {"asked": asdict(prompt), "said": said, "certainty": asdict(everything.certainty[prompt])}
            for prompt, said in everything.texts.items()
        ]
        read = [{"asked": asdict(probe), "said": said} for probe, said in everything.read.items()]
        self.write(reply.digest, {"texts": texts, "read": read})

    def _stored(self, digest: str) -> Reply:
        """Everything in the file; nothing where there is none, or it is of an older form."""
        stored = self.read(digest)
        if stored is None:
            return Reply(digest)
        try:
            texts = {Prompt(**entry["asked"]): str(entry["said"]) for entry in stored["texts"]}
            certainty = {Prompt(**entry["asked"]): Certainty(**entry["certainty"]) for entry in stored["texts"]}
            read = {_probe(entry["asked"]): str(entry["said"]) for entry in stored["read"]}
        except (KeyError, TypeError):
            return Reply(digest)
        return Reply(digest, texts, certainty, read)


def _probe(fields: Mapping[str, Any]) -> Probe:
    return Probe(**{**fields, "options": tuple(fields["options"])})
