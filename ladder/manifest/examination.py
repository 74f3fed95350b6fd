"""Whether the data, gates, laws and budget of a manifest are written so that they can be applied: each check is a
function from manifest to problems."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from ladder.manifest.files import named_files, named_folders
from ladder.manifest.problems import Problem, found
from ladder.manifest.schema import GATES, Laws, Manifest, MetricGate

_LONGEST_PATH = 4096
"""Characters; Linux takes no more bytes. Following 400,000 folders to their end would take minutes."""


def paths_can_be_paths(manifest: Manifest) -> Iterator[Problem]:
    sources = ((f"laws.allowed_sources.{index}", path) for index, path in enumerate(manifest.laws.allowed_sources))
    for field, path in (*named_files(manifest), *named_folders(manifest), *sources):
        if not path.strip():
            yield Problem(field, "found an empty path", "write a path relative to the manifest's folder")
        if len(path) > _LONGEST_PATH:
            message = f"found a path of {len(path)} characters, expected at most {_LONGEST_PATH}"
            yield Problem(field, message, "shorten it")


def train_files_are_named_once(manifest: Manifest) -> Iterator[Problem]:
    train = manifest.data.train if manifest.data else []
    for path, count in Counter(train).items():
        if count > 1:
            yield Problem("data.train", f"found {found(path)} {count} times", "name each file once")


def tone_has_a_reference(manifest: Manifest) -> Iterator[Problem]:
    tone = manifest.gates.tone
    meant = tone.reference.strip().lower()
    if tone.reference != "none" and meant in {"none", "null", "false", "off"}:
        yield Problem("gates.tone.reference", f"found {tone.reference!r}", "write none where there is no reference")
    if tone.reference != "parent" and meant == "parent":
        yield Problem("gates.tone.reference", f"found {tone.reference!r}", "write parent for the parent's own answers")
    if tone.reference == "parent" and manifest.evolution_request.parent_gen is None:
        yield Problem(
            "gates.tone.reference",
            "found 'parent', but evolution_request.parent_gen is missing, so nobody has a voice to keep",
            "name a reference file, or write none",
        )
    for field in ("prompts", "encoder"):
        if tone.reference == "none" and getattr(tone, field) is not None:
            yield Problem(
                f"gates.tone.{field}",
                f"found {field}, but gates.tone.reference is none, so nothing is compared",
                f"name a reference file, or leave {field} out",
            )


def tone_measure_is_complete(manifest: Manifest) -> Iterator[Problem]:
    tone = manifest.gates.tone
    if tone.measure == "readout" and tone.readout is None:
        yield Problem(
            "gates.tone.readout",
            "is missing: measure readout compares along directions of concepts",
            'write {"vectors": FOLDER} with the folder that `ladder concepts fit` wrote, or measure: stylometric',
        )
    if tone.measure == "readout" and tone.reference != "parent":
        yield Problem(
            "gates.tone.reference",
            f"found {tone.reference!r}, but readings of a child are held against its parent's",
            "write parent, or measure: stylometric",
        )
    if tone.measure != "readout" and tone.readout is not None:
        yield Problem(
            "gates.tone.readout",
            f"found directions, but measure {tone.measure} reads none",
            "leave it out, or write measure: readout",
        )
    if tone.measure == "embedding" and tone.encoder is None:
        yield Problem(
            "gates.tone.encoder",
            "is missing: measure embedding compares what a sentence encoder makes of the answers",
            "name the local folder of one, or write measure: stylometric",
        )
    if tone.measure != "embedding" and tone.encoder is not None:
        yield Problem(
            "gates.tone.encoder",
            f"found an encoder, but measure {tone.measure} asks none",
            "leave it out, or write measure: embedding",
        )


def pushes_have_a_parent(manifest: Manifest) -> Iterator[Problem]:
    if manifest.laws.max_push and manifest.evolution_request.parent_gen is None:
        yield Problem(
            "laws.max_push",
            "found a limit, but evolution_request.parent_gen is missing, so nobody reads the rows",
            "leave it out: a genesis has nobody to be pushed",
        )


def metric_gates_have_names_of_their_own(manifest: Manifest) -> Iterator[Problem]:
    taken = {*GATES, *(name for name in ("calibration", "coherence") if getattr(manifest.gates, name))}
    for index, gate in enumerate(manifest.gates.metrics):
        if gate.name in taken:
            yield Problem(f"gates.metrics.{index}.name", f"found {gate.name!r}, which another gate has", "rename it")
        taken.add(gate.name)


def metric_gates_can_fail(manifest: Manifest) -> Iterator[Problem]:
    genesis = manifest.evolution_request.parent_gen is None
    for index, gate in enumerate(manifest.gates.metrics):
        field, changes = f"gates.metrics.{index}", _changes(gate)
        if gate.threshold is None and not changes:
            yield Problem(field, "holds the metric against nothing", "write threshold, or a change against the parent")
        if genesis and changes:
            message = "found a change against the parent, but evolution_request.parent_gen is missing"
            yield Problem(f"{field}.{changes[0]}", message, "write a threshold instead")


def coherence_gate_can_fail(manifest: Manifest) -> Iterator[Problem]:
    gate = manifest.gates.coherence
    if gate and gate.minimum == 0 and (manifest.evolution_request.parent_gen is None or gate.min_ratio == 0):
        message = "holds the mass of the answers against nothing"
        yield Problem("gates.coherence", message, "write a minimum above 0, or leave the section out")


def calibration_gate_can_fail(manifest: Manifest) -> Iterator[Problem]:
    gate = manifest.gates.calibration
    if gate and manifest.evolution_request.parent_gen is None and gate.maximum == 1:
        message = "holds the error against nothing: there is no parent, and gates.calibration.maximum is 1"
        yield Problem("gates.calibration", message, "write a maximum below 1, or leave the section out")


def _changes(gate: MetricGate) -> list[str]:
    return [field for field in ("min_absolute_change", "min_relative_change") if getattr(gate, field) is not None]


def stops_are_not_empty(manifest: Manifest) -> Iterator[Problem]:
    lists = {
        "gates.decoding.stop": (manifest.gates.decoding.stop or [], "every answer would be empty"),
        "stabilizers.taboo_words": (manifest.stabilizers.taboo_words, "it is no word"),
    }
    for field, (texts, reason) in lists.items():
        for index, text in enumerate(texts):
            if not text or (field.endswith("words") and not text.strip()):
                yield Problem(f"{field}.{index}", f"found an empty text: {reason}", "take it out")


def patterns_can_tell_texts_apart(manifest: Manifest) -> Iterator[Problem]:
    for field, pattern, consequence in _patterns(manifest.laws):
        try:
            law = re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            yield Problem(field, f"{found(pattern)} is no regular expression: {error}", "escape what is plain text")
            continue
        if all(law.search(text) for text in ("", "a", "7 ")):
            yield Problem(
                field,
                f"{found(pattern)} matches every text, so {consequence}",
                "write an expression that needs at least one character",
            )


def _patterns(laws: Laws) -> Iterator[tuple[str, str, str]]:
    """Field, regular expression, and what follows if it matches everything."""
    for index, pattern in enumerate(laws.forbidden_text):
        yield f"laws.forbidden_text.{index}", pattern, "every answer would break this law"
    for index, one in enumerate(laws.required_text):
        yield f"laws.required_text.{index}.pattern", one.pattern, "nothing could break this law"
    if laws.refusals:
        yield "laws.refusals.pattern", laws.refusals.pattern, "every answer would count as a refusal"


def only_prompts_are_chat(manifest: Manifest) -> Iterator[Problem]:
    for index, one in enumerate(manifest.laws.required_text):
        if one.chat and one.prompts is None:
            yield Problem(
                f"laws.required_text.{index}.chat",
                "found true, but no prompts: the exam's own questions say themselves whether they are chat",
                "name prompts, or leave chat out",
            )


def limits_have_figures(manifest: Manifest) -> Iterator[Problem]:
    laws = manifest.laws
    for word in ("max_ece_rise", "max_entropy_drop"):
        if getattr(laws, word) is not None and manifest.evolution_request.parent_gen is None:
            yield Problem(
                f"laws.{word}",
                "found a limit against the parent, but evolution_request.parent_gen is missing",
                f"leave {word} out",
            )
    if laws.max_self_bleu is not None and laws.sampled_answers < 2:
        yield Problem(
            "laws.max_self_bleu",
            f"found a limit, but laws.sampled_answers is {laws.sampled_answers}, and one text is like no other",
            "sample two texts or more, or leave max_self_bleu out",
        )


def budget_covers_the_steps(manifest: Manifest) -> Iterator[Problem]:
    most, steps = manifest.budget.max_steps, manifest.training_params.steps
    if most is not None and most < steps:
        yield Problem(
            "budget.max_steps",
            f"found {most}, but training_params.steps asks for {steps}",
            "lower the steps or raise the budget",
        )


def training_laws_can_be_examined(manifest: Manifest) -> Iterator[Problem]:
    laws, steps = manifest.laws.training, manifest.training_params.steps
    if laws is None:
        if manifest.laws.on_broken == "halt":
            yield Problem("laws.on_broken", "found 'halt', but no laws.training that could", "write laws.training")
        return
    figures = (laws.max_loss_spike, laws.max_grad_norm_spike, laws.max_kl, laws.min_entropy)
    if any(figure is not None for figure in figures) and laws.window >= steps:
        yield Problem(
            "laws.training.window",
            f"found {laws.window}, but training_params.steps is {steps}, so no step has so many before it",
            "look back fewer steps",
        )
    if laws.sample_every is not None:
        yield from _unread_samples(manifest, laws.sample_every)


def _unread_samples(manifest: Manifest, every: int) -> Iterator[Problem]:
    laws, stabilizers, where = manifest.laws, manifest.stabilizers, "laws.training.sample_every"
    taboo = stabilizers.token_masking and stabilizers.taboo_words
    if not (laws.forbidden_text or laws.canaries or taboo):
        yield Problem(where, "nothing reads the texts", "name forbidden_text, canaries or taboo_words, or leave it out")
    if laws.sampled_answers == 0:
        yield Problem(where, "laws.sampled_answers is 0, so no text is written", "ask for texts, or leave it out")
    if every > manifest.training_params.steps:
        yield Problem(where, f"found {every}, but only {manifest.training_params.steps} steps", "sample more often")


EXAMINATION_CHECKS = (
    paths_can_be_paths,
    train_files_are_named_once,
    tone_has_a_reference,
    tone_measure_is_complete,
    pushes_have_a_parent,
    metric_gates_have_names_of_their_own,
    metric_gates_can_fail,
    calibration_gate_can_fail,
    coherence_gate_can_fail,
    stops_are_not_empty,
    patterns_can_tell_texts_apart,
    only_prompts_are_chat,
    limits_have_figures,
    budget_covers_the_steps,
    training_laws_can_be_examined,
)
"""Asked of every manifest with the other checks (``ladder.manifest.checks``)."""
