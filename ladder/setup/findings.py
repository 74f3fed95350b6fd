"""What an examination leaves beside a model: the page of its verdict, its pictures, and the report, written last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ladder.data import BEGINNING, PAGE, REPORT
from ladder.data.examples import begin_ids
from ladder.exam import Answers, Calibration, Exam
from ladder.gates import Comparison, GateReport, missed
from ladder.manifest import Request
from ladder.models import folder_digest, template_digest, tokenizer_digest
from ladder.report import page, plots
from ladder.system.files import save_bytes, save_text


def document_of(
    request: Request,
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    report: GateReport,
    comparison: Comparison | None,
    calibration: Calibration,
    child: Answers,
    exam: Exam,
) -> dict[str, Any]:
    """The report as plain data. Its keys are read of generations of any age.

    Args:
        folder: of the model that was examined, and ``tokenizer`` its own.
    """
    encoder = request.manifest.gates.tone.encoder
    return {
        "gates": report.to_dict(),
        "answers": asdict(comparison) if comparison else None,
        "missed": asdict(missed(exam, child)),
        "pulse": calibration.to_dict(),
        "noise": asdict(child.noise),
        "tone_encoder": folder_digest(request.folder(encoder)) if encoder else None,
        "tokenizer": tokenizer_digest(folder),
        "chat_template": template_digest(folder),
        BEGINNING: begin_ids(tokenizer),
    }


def save_findings(sidecars: Path, shown: page.Page, document: Mapping[str, Any]) -> None:
    """Write page, pictures, and last the report: where it is, the examination is done."""
    save_text(sidecars / PAGE, page.html(shown))
    for name, png in plots.pngs(shown).items():
        save_bytes(sidecars / name, png)
    save_text(sidecars / REPORT, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
