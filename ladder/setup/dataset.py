"""What a child starts as and will learn from: rows, replay and dreams as batches."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from ladder.data import (
    BEGINNING,
    ERASED,
    PROBES,
    REPORT,
    Left,
    Row,
    kept_day,
    message_text,
    read_digests,
    read_left_behind,
    read_lines,
    read_rows,
)
from ladder.data.batches import WRITTEN, Batches, Collation
from ladder.data.documents import Index, library, read_documents
from ladder.data.examples import Encoding, Example, begin_ids, encode_once, with_readings, with_weights
from ladder.errors import DataError, ManifestError
from ladder.exam import Probe, check_contamination, read_probes
from ladder.manifest import Data, Request, contexts, evidences, teacher_files
from ladder.methods import method_of
from ladder.models import (
    check_config,
    control_names,
    copy_model,
    drops_systems,
    fresh_model,
    holding,
    load_tokenizer,
    opens_otherwise,
    pad_id,
    read_template,
    save_model,
    train_tokenizer,
)
from ladder.sampling.dreams import Dream
from ladder.system.files import save_folder


@dataclass(frozen=True)
class Dataset:
    """The rows of one run.

    Args:
        new: this generation's own rows.
        replay: what its ancestors left, with places for messages.
        missing: rows that ancestors left as digests and that no file of ``data.replay_from`` holds.
        lessons: which ancestor left each replayed row, by its place among them, the oldest first.
    """

    new: tuple[Row, ...]
    replay: tuple[Row, ...]
    missing: int = 0
    lessons: tuple[int, ...] = ()

    def rehearsed(self, times: Sequence[int]) -> Dataset:
        """With the replayed rows of each ancestor taken so many times, one after another, and so learned and dreamt on
        that much more often."""
        counts = [times[lesson] for lesson in self.lessons]
        replay = chain.from_iterable([row] * count for row, count in zip(self.replay, counts, strict=True))
        lessons = chain.from_iterable([one] * count for one, count in zip(self.lessons, counts, strict=True))
        return replace(self, replay=tuple(replay), lessons=tuple(lessons))


def read_dataset(request: Request, ancestors: Sequence[Path], *, decided: bool = False) -> Dataset:
    """Read this generation's rows and the samples in its ancestors' folders.

    Args:
        decided: the request was carried out before, so that nobody can mend its rows any more: none is refused.

    Raises:
        DataError: a row cannot be read, has no gold label where the method needs one, or was erased from an ancestor;
            or none has a weight. Names file and line.
    """
    new = _weighing(_rows(request, data_of(request).train))
    if method_of(request.manifest).needs_gold and not decided:
        _check_gold(new, request.manifest.evolution_request.training_method)
    erased = _erased(ancestors)
    if not decided:
        _check_not_erased(new, erased)
    left = _left_behind(request, ancestors, erased) if request.manifest.stabilizers.replay_buffer else []
    lessons = tuple(place for place, one in enumerate(left) for _ in one.rows)
    rows = tuple(row for one in left for row in one.rows)
    return Dataset(tuple(new), rows, sum(one.missing for one in left), lessons)


def _weighing(rows: Sequence[Row]) -> list[Row]:
    """The rows without those of weight 0, of which nothing is learned.

    Raises:
        DataError: all have weight 0.
    """
    found = [row for row in rows if row.weight > 0]
    if not found:
        raise DataError(
            f"all {len(rows)} rows have 'weight' 0, so there is nothing to learn",
            where=rows[0].where,
            remedy="give some of them a weight above 0, or leave the weights out",
        )
    return found


def _erased(ancestors: Sequence[Path]) -> frozenset[str]:
    """Digests of the rows that were erased from them."""
    return frozenset().union(*(read_digests(folder / "ladder" / ERASED) for folder in ancestors))


def _rows(request: Request, files: Sequence[str]) -> list[Row]:
    columns = {str(key): column for key, column in data_of(request).columns.items()}
    return [row for file in files for row in read_rows(request.source(file), columns)]


def _left_behind(request: Request, ancestors: Sequence[Path], erased: frozenset[str]) -> list[Left]:
    """What each ancestor left; the files at hand may still hold a row that was erased."""
    at_hand = {row.digest: row for row in _rows(request, data_of(request).replay_from)}
    allowed = {digest: row for digest, row in at_hand.items() if digest not in erased}
    return [read_left_behind(folder, allowed) for folder in ancestors]


def replay_warnings(dataset: Dataset) -> list[str]:
    """What a person should know about the rows that are replayed."""
    if not dataset.missing:
        return []
    return [
        f"data.replay_from: {dataset.missing} rows that ancestors left as digests stand in none of its files; "
        "they are not replayed"
    ]


def beginning_warnings(tokenizer: PreTrainedTokenizerFast, parent: Path | None) -> list[str]:
    """What a person should know who goes on with a child that learned texts with a start token in front, which its
    tokenizer names and does not add: until now every text began with it. The first child after it is told."""
    named, report = tokenizer.bos_token, parent and parent / "ladder" / REPORT
    if named is None or begin_ids(tokenizer) or report is None or not report.is_file():
        return []
    if BEGINNING in json.loads(report.read_text(encoding="utf-8")):
        return []
    return [
        f"texts begin without {named} from this generation on, because the tokenizer does not add it for anybody; "
        "its parent learned them with it in front"
    ]


def reading_warnings(
    request: Request, dataset: Dataset, own: Sequence[Probe], tokenizer: PreTrainedTokenizerFast
) -> list[str]:
    """What a person should know about how rows and raw prompts become ids.

    Args:
        own: the child's probes.
        tokenizer: the child's.
    """
    typed = [] if data_of(request).control_tokens == "parse" else _control_warnings(dataset, own, tokenizer)
    return [*typed, *_template_warnings(dataset, own, tokenizer)]


def _control_warnings(dataset: Dataset, own: Sequence[Probe], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Which texts look as if they had gone through a chat template."""
    texts = {
        "data.train": ("rows", texts_of([row for row in dataset.new if row.form != "messages"])),
        # An ancestor may have meant them: what its manifest said of control tokens is not inherited.
        "replay": ("ancestors' rows", texts_of([row for row in dataset.replay if row.form != "messages"])),
        "data.probes": ("raw prompts", [probe.prompt for probe in own if not probe.chat]),
    }
    names = control_names(tokenizer)
    found = {field: (what, said, holding(names, said)) for field, (what, said) in texts.items()}
    return [
        f"{field}: {len(held)} of {len(said)} {what} ({len(held) / len(said):.0%}) hold control tokens such as "
        f"{held[0]}, which are read as plain characters; if they went through a chat template before, write "
        "data.control_tokens: parse, or leave the template to ladder and give them as messages"
        for field, (what, said, held) in found.items()
        if held
    ]


def _template_warnings(dataset: Dataset, own: Sequence[Probe], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    talks = any(row.form == "messages" for row in dataset.new) or any(probe.chat for probe in own)
    if not talks or tokenizer.chat_template is None:
        return []
    found = []
    rows = sum(_has_system(row.fields["messages"]) for row in dataset.new if row.form == "messages")
    asked = sum(_has_system(probe.question().messages) for probe in own if probe.chat)
    if (rows or asked) and drops_systems(tokenizer):
        found.append(
            f"data.chat_template: it does not write what a system says, which {rows} rows and {asked} probes hold; "
            "they are learned and asked without it"
        )
    otherwise = [
        "data.chat_template: it opens an answer that is asked for (add_generation_prompt) otherwise than it writes one "
        "in a conversation; rows are learned and exams are asked as in a conversation, and so must ask whoever loads "
        "the child"
    ]
    return found + (otherwise if opens_otherwise(tokenizer) else [])


def _has_system(messages: Sequence[Mapping[str, Any]]) -> bool:
    return any(message["role"] == "system" for message in messages)


def chosen_day(request: Request, parent: Path | None) -> str:
    """The day that a chat template writes in a run that has not begun: the manifest's, the parent's, or this one."""
    kept = kept_day(parent / "ladder") if parent else None
    return data_of(request).today or kept or date.today().isoformat()


def own_probes(request: Request) -> tuple[Probe, ...]:
    """This generation's held-out probes; none where the manifest names none."""
    probes = data_of(request).probes
    return tuple(read_probes(request.file(probes))) if probes else ()


def recall_probes(ancestors: Mapping[str, Path]) -> dict[str, tuple[Probe, ...]]:
    """The probes that each ancestor left in its folder, by its name."""
    return {name: _probes_left(folder / "ladder" / PROBES, name) for name, folder in ancestors.items()}


def _probes_left(file: Path, name: str) -> tuple[Probe, ...]:
    """None where there is no file, or where `ladder erase` took out all that stood in it."""
    left = file.is_file() and any(read_lines(file))
    return tuple(read_probes(file, f"{name}'s {PROBES}")) if left else ()


def check_held_out(dataset: Dataset, own: Sequence[Probe], recall: Mapping[str, Sequence[Probe]]) -> None:
    """See that no new row tells what the exam will ask.

    Replayed rows were new rows once. Dreams are not checked: they are a model's own words.

    Args:
        own: the child's probes.
        recall: those of each ancestor that is there, by its name.

    Raises:
        DataError: names row and probe.
    """
    check_contamination([*own, *chain.from_iterable(recall.values())], dataset.new)


def check_documents(
    request: Request, ancestors: Sequence[Path], own: Sequence[Probe], recall: Mapping[str, Sequence[Probe]]
) -> None:
    """See that what teachers count or look things up in can be read, was not erased, and tells nothing that the exam
    will ask: a teacher would say it to the student.

    Args:
        ancestors: their folders.
        own: the child's probes.
        recall: those of each ancestor that is there, by its name.

    Raises:
        DataError: a file is empty or cannot be read, or a document was erased from an ancestor or tells a probe. Names
            it.
        UsageError: the library that finds documents is not installed.
    """
    teachers = request.manifest.teachers
    if any(one.kind == "retrieval" for one in teachers.others) or evidences(request.manifest):
        library()
    erased = _erased(ancestors)
    for field, path in teacher_files(teachers):
        (rows,) = read_documents([request.file(path)])
        _check_not_erased(rows, erased)
        check_contamination([*own, *chain.from_iterable(recall.values())], rows, f"documents of {field}")


def document_rows(request: Request) -> list[Row]:
    """All that teachers counted or looked things up in: the student learned of it, if not word for word."""
    files = [request.file(path) for _, path in teacher_files(request.manifest.teachers)]
    return list(chain.from_iterable(read_documents(files)))


def data_of(request: Request) -> Data:
    """The data section, which ``read_request`` made sure of."""
    assert request.manifest.data is not None
    return request.manifest.data


def write_start(folder: Path, request: Request, tokenizer: PreTrainedTokenizerFast, parent: Path | None) -> None:
    """Write the folder that the student starts as: random weights, an existing model, or the parent under a new chat
    template.

    Args:
        tokenizer: as ``start_tokenizer``.
    """
    student, origin = request.manifest.student, origin_of(request, parent)

    def write(target: Path) -> None:
        if origin is None:
            assert student.architecture is not None
            save_model(target, fresh_model(student.architecture, tokenizer, request.manifest.seeds.init), tokenizer)
        else:
            copy_model(origin, target, tokenizer)

    save_folder(folder, write)


def origin_of(request: Request, parent: Path | None) -> Path | None:
    """The folder whose weights the student starts with; None where it starts at random."""
    model = request.manifest.student.model
    return parent or (request.folder(model) if model else None)


def start_tokenizer(request: Request, dataset: Dataset, parent: Path | None) -> PreTrainedTokenizerFast:
    """The child's tokenizer, with the chat template that the manifest names, where it names one."""
    student, named, origin = request.manifest.student, data_of(request).chat_template, origin_of(request, parent)
    if origin is None:
        assert student.architecture is not None
        if student.architecture.tokenizer is not None:
            tokenizer = load_tokenizer(request.folder(student.architecture.tokenizer))
        else:
            texts = [*texts_of(dataset.new), *_tokenizer_texts(request)]
            tokenizer = train_tokenizer(texts, student.architecture.vocab_size)
    else:
        check_config(origin)  # Before its tokenizer is missed.
        tokenizer = load_tokenizer(origin)
    if named:
        tokenizer.chat_template = read_template(request.file(named))
    return tokenizer


def _tokenizer_texts(request: Request) -> list[str]:
    """What the tokenizer learns beside the rows.

    Raises:
        DataError: a file cannot be read.
    """
    files = data_of(request).tokenizer_text
    plain = [file for file in files if file.endswith(TEXT_FILES)]
    rows = _rows(request, [file for file in files if file not in plain])
    return [*texts_of(rows), *(line for file in plain for _, line in read_lines(request.file(file)))]


def check_tokenizer_text(request: Request) -> None:
    """Refuse texts for a tokenizer where none is learned.

    Raises:
        ManifestError: the student starts with a tokenizer that is there already.
    """
    made = request.manifest.student.architecture if request.parent is None else None
    if data_of(request).tokenizer_text and (made is None or made.tokenizer is not None):
        raise ManifestError(
            "names texts for a tokenizer, and this child has one already",
            where=f"{request.path}: data.tokenizer_text",
            remedy="leave it out; a family's tokenizer is learned once, by its genesis from scratch",
        )


def build_batches(
    request: Request,
    tokenizer: PreTrainedTokenizerFast,
    rows: Mapping[str, list[Example]],
    dreams: Sequence[Dream],
    ranks: int = 1,
    rounds: Mapping[int, Sequence[Example]] | None = None,
) -> Batches:
    """Every batch of the run, as a function of the step.

    Args:
        rows: as ``encode_dataset``.
        rounds: what the student writes, by the first step of each round; stand-ins, as long as nobody wrote it.
        ranks: of the student; a step is split into ``training_params.accumulation`` micro-batches for each of them.

    Raises:
        ManifestError: a batch is smaller than the number of its sources or parts.
    """
    params, seeds = request.manifest.training_params, request.manifest.seeds
    gold = method_of(request.manifest).dreams_are_gold
    pad, data, shares = pad_id(tokenizer), data_of(request), params.shares.model_dump()
    pools = dict(rows) | {"dreams": [dream.example(gold) for dream in dreams]}
    pools |= {WRITTEN: list(chain.from_iterable((rounds or {}).values()))}
    return Batches(
        {source: examples for source, examples in pools.items() if examples and shares[source] > 0},
        shares,
        params.batch_size,
        params.accumulation,
        seeds.data,
        Collation(pad, data.max_length, data.packing),
        data.group_by_length,
        ranks,
        rounds or {},
    )


def encodings(request: Request) -> tuple[Encoding, Encoding]:
    """How replayed rows become ids, and how new ones do."""
    data = data_of(request)
    old = Encoding(data.max_length, data.truncation_side, turns=data.train_turns, controls=data.control_tokens)
    return old, replace(old, completion_only=method_of(request.manifest).completion_only)


def encode_dataset(
    request: Request, tokenizer: PreTrainedTokenizerFast, longest: int | None, dataset: Dataset, cache: Path
) -> dict[str, list[Example]]:
    """The new rows and the replayed ones as ids, by source; none of a source that has no share.

    Args:
        tokenizer: the child's.
        longest: positions of a teacher, for what is shown to one besides the row; None where they have no end.
        cache: folder for encoded rows.

    Raises:
        DataError: a row leaves nothing to train on.
    """
    shares, old, new = request.manifest.training_params.shares.model_dump(), *encodings(request)
    examples = with_weights(dataset.new, encode_once(dataset.new, tokenizer, new, cache), tokenizer, new)
    if told := contexts(request.manifest):
        found = _evidence(request, dataset.new)
        examples = with_readings(dataset.new, examples, told, tokenizer, new, longest or sys.maxsize, found)
    pools = {"new": examples, "replay": encode_once(dataset.replay, tokenizer, old, cache)}
    return {source: rows for source, rows in pools.items() if shares[source] > 0}


def _evidence(request: Request, rows: Sequence[Row]) -> dict[int, list[str]]:
    """What teachers that look things up read before each row, by their number."""
    found = {}
    for number, asked in evidences(request.manifest).items():
        index = Index(read_documents(map(request.file, asked.files)))
        found[number] = [index.evidence(row, asked.hits) for row in rows]
    return found


def loss_elements(batches: Batches, steps: int, config: PretrainedConfig) -> int:
    """Elements of the logits that the loss goes through, from the mean row of each source.

    Args:
        config: the student's.
    """
    rows = {
        source: count * float(np.mean([sum(example.trained) for example in batches.pools[source]]))
        for source, count in batches.rows_by_source().items()
    }
    return int(steps * sum(rows.values()) * config.get_text_config().vocab_size)


def describe_pools(pools: Mapping[str, Sequence[Example]]) -> str:
    """Rows and tokens by source, and how many rows were cut."""
    parts = [f"{source} {len(rows)} rows, {sum(map(len, rows))} tokens" for source, rows in pools.items()]
    cut = sum(example.truncated for rows in pools.values() for example in rows)
    return "; ".join(parts) + (f"; {cut} rows cut to data.max_length" if cut else "")


def _check_gold(rows: Sequence[Row], method: str) -> None:
    for row in rows:
        if not row.has_gold:
            raise DataError(
                f"a row with only a prompt has no gold label, and {method} needs one",
                where=row.where,
                remedy="add a completion, or write it as text",
            )


def _check_not_erased(rows: Sequence[Row], erased: frozenset[str]) -> None:
    for row in rows if erased else ():
        if row.digest in erased:
            raise DataError(
                "this row was erased from an ancestor with `ladder erase`",
                where=row.where,
                remedy="take it out of the file, and whatever else belongs to the same person",
            )


def texts_of(rows: Sequence[Row]) -> list[str]:
    """Everything that stands in the rows: a text each, or one for each message."""
    return [text for row in rows for text in _strings(row)]


def _strings(row: Row) -> list[str]:
    if row.form == "messages":
        return [message_text(message) for message in row.fields["messages"]]
    return ["".join(row.fields[key] for key in ("prompt", "completion", "text") if key in row.fields)]


TEXT_FILES = (".txt", ".md")
"""Endings of files of plain text."""
