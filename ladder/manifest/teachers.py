"""What teachers must mean: each by the facts of its kind, all of them together, and beside the family; what they read,
and what they weigh."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from string import Formatter

from pydantic import ValidationError

from ladder.errors import ManifestError
from ladder.manifest import installed
from ladder.manifest.effective import DISTILLATION, contexts, evidences, others, routing, teacher_field
from ladder.manifest.explain import explain
from ladder.manifest.names import Name
from ladder.manifest.problems import Problem, found
from ladder.manifest.schema import Manifest, OtherTeacher, TrainingParams

_TAKEN = re.compile(r"teacher\d*|student|evaluator|parent|grandparent|gold|label|dreams?|mean")
"""Names that reports and metrics have a meaning for."""
_FIELDS = {
    "generation": "the name of an ancestor",
    "path": "a Hugging Face folder",
    "files": "the files that it reads",
}
"""Fields that a kind may need, and what they hold."""


def others_have_a_target(manifest: Manifest) -> Iterator[Problem]:
    """Who teaches needs somebody who listens, and a method without a parent somebody who teaches."""
    method, listed = manifest.evolution_request.training_method, manifest.teachers.others
    facts = installed.method_facts(method)
    if listed and not facts.has_target:
        yield Problem("teachers.others", f"found teachers, but {method} has no teachers' target", "leave them out")
    if not listed and facts.has_target and facts.starts_at_random:
        yield Problem(
            "teachers.others",
            f"is missing: {method} has no parent, so another teacher must teach it",
            "name one, or use training_method pretraining",
        )


def others_have_names_of_their_own(manifest: Manifest) -> Iterator[Problem]:
    counts = Counter(one.name for one in manifest.teachers.others)
    for number, one in others(manifest).items():
        if _TAKEN.fullmatch(one.name):
            yield Problem(f"{teacher_field(number)}.name", f"found {one.name!r}, which means another", "rename it")
        elif counts[one.name] > 1:
            yield Problem(
                f"{teacher_field(number)}.name", f"found {one.name!r} {counts[one.name]} times", "give each its own"
            )


def others_are_of_their_kind(manifest: Manifest) -> Iterator[Problem]:
    """Each says what its kind needs and nothing else; its options are what the kind declares."""
    for number, one in others(manifest).items():
        field = teacher_field(number)
        try:
            facts = installed.teacher_facts(one.kind, f"{field}.kind")
        except ManifestError as error:  # a plug-in that is installed and broken
            yield Problem(f"{field}.kind", error.message, error.remedy or "")
            continue
        yield from _unmet(one, facts, field)
        if manifest.training_params.granularity == "sequence" and facts.may_pass:
            message = "is silent on some tokens, so a row has no mean that granularity: sequence could route it by"
            yield Problem(f"{field}.kind", f"{one.kind} {message}", "write training_params.granularity: token")
        if one.context is not None and not facts.is_model:
            message = f"found a text, but a teacher of kind {one.kind} is no model that could read it"
            yield Problem(f"{field}.context", message, "leave it out")
        if one.retrieval is not None and not facts.is_model:
            message = f"found documents, but a teacher of kind {one.kind} is no model that could read them"
            yield Problem(f"{field}.retrieval", message, "leave it out")
        try:
            facts.Options.model_validate(one.options)
        except ValidationError as error:
            for problem in explain(error, one.options, facts.Options):
                yield replace(problem, field=f"{field}.options.{problem.field}")


def _unmet(one: OtherTeacher, facts: installed.TeacherFacts, field: str) -> Iterator[Problem]:
    for name, meaning in _FIELDS.items():
        written = bool(getattr(one, name))
        if name in facts.needs and not written:
            yield Problem(f"{field}.{name}", f"is missing: a teacher of kind {one.kind} needs {meaning}", "write it")
        if written and name not in facts.needs:
            needed = " and ".join(sorted(facts.needs)) or "none of these"
            reads = f", or for documents that it reads before a row write {field}.retrieval"
            remedy = "leave it out" + (reads if name == "files" and facts.is_model else "")
            yield Problem(f"{field}.{name}", f"is not for kind {one.kind}, which needs {needed}", remedy)
    for path, count in Counter(one.files).items():
        if count > 1:
            yield Problem(f"{field}.files", f"found {found(path)} {count} times", "name each file once")


def other_generations_are_ancestors(manifest: Manifest) -> Iterator[Problem]:
    """As far as names tell; the registry knows the rest."""
    parent = manifest.evolution_request.parent_gen
    for number, one in others(manifest).items():
        if one.generation is None:
            continue
        field = f"{teacher_field(number)}.generation"
        try:
            name, below = Name.parse(one.generation), Name.parse(parent) if parent else None
        except ManifestError as error:
            yield Problem(field, error.message, error.remedy or "")
            continue
        if below is None:
            yield Problem(field, "found an ancestor, but evolution_request.parent_gen is missing", "name a guest")
        elif name.family != below.family or name.index >= below.index:
            yield Problem(field, f"found {name}, expected an ancestor of {below}", "name one of the parent's line")


def guests_share_a_tokenizer(manifest: Manifest) -> Iterator[Problem]:
    """A family's own tokenizer, which is trained on its rows, is nobody else's."""
    shape, method = manifest.student.architecture, manifest.evolution_request.training_method
    if shape is not None and shape.tokenizer is not None:
        if "vocab_size" in shape.model_fields_set:
            message = f"found {shape.vocab_size} beside a tokenizer, which has a size of its own"
            yield Problem("student.architecture.vocab_size", message, "leave it out")
        return
    guest = next((one for one in manifest.teachers.others if one.path is not None), None)
    if guest is not None and installed.method_facts(method).starts_at_random:
        yield Problem(
            "student.architecture.tokenizer",
            f"is missing: {guest.name} can teach only who has its tokenizer, and {method} would train another",
            f"write the folder of {guest.name}: {found(guest.path)}",
        )


def retrieved_texts_are_read(manifest: Manifest) -> Iterator[Problem]:
    """What is found stands where a context says ``{context}``, and nowhere else."""
    method, texts = manifest.evolution_request.training_method, contexts(manifest)
    for number in evidences(manifest):
        field, text = teacher_field(number), texts.get(number)
        if not installed.method_facts(method).has_target:
            yield Problem(
                f"{field}.retrieval", f"found documents, but no teacher reads rows in {method}", "leave it out"
            )
        elif number in others(manifest) and not (others(manifest)[number].path or others(manifest)[number].generation):
            continue  # No model, which is refused as it is.
        elif text is None or not _names_context(text):
            remedy = (
                f'write {field}.context: "{{context}}\\n"' if text is None else f"put {{context}} into {field}.context"
            )
            message = "found documents, but no context that holds {context} says where this teacher reads them"
            yield Problem(f"{field}.retrieval", message, remedy)


def _names_context(template: str) -> bool:
    try:
        return any(name == "context" for _, name, _, _ in Formatter().parse(template))
    except ValueError:  # Said of the context itself.
        return True


_WEIGHTS = ("fusion", "fusion_rho", "fusion_floor", "fusion_decay", "throttle")


def weights_weigh(manifest: Manifest) -> Iterator[Problem]:
    """What teachers weigh is said where they are weighed. A setting that is what it would be anyway says nothing."""
    params, method = manifest.training_params, manifest.evolution_request.training_method
    written = [name for name in _WEIGHTS if getattr(params, name) != TrainingParams.model_fields[name].default]
    if not installed.method_facts(method).has_target:
        for name in written:
            if params.throttle or name != "throttle":
                message = f"found {found(getattr(params, name))}, but {method} has no teachers' target to weigh them in"
                remedy = f"leave it out, or use training_method {DISTILLATION}"
                yield Problem(f"training_params.{name}", message, remedy)
        return
    precise = params.fusion == "precision"
    throttles = bool(manifest.teachers.others) if params.throttle is None else params.throttle
    for name in written:
        if name in ("fusion_rho", "fusion_floor") and not precise:
            message = f"found {getattr(params, name):g}, which fusion {params.fusion} has no use for"
            yield Problem(f"training_params.{name}", message, "write fusion: precision, or leave it out")
        if name == "fusion_decay" and not (precise or throttles):
            message = f"found {params.fusion_decay:g}, but fusion {params.fusion} without a throttle measures nothing"
            remedy = "write fusion: precision or throttle: true, or leave it out"
            yield Problem("training_params.fusion_decay", message, remedy)
    if params.fusion == "mean" and routing(manifest) == "cascade":
        message = "found 'mean' with routing cascade, where nothing is blended: each token has one teacher or its label"
        yield Problem("training_params.fusion", message, "leave it out, or write routing: agreement or surprise")


TEACHER_CHECKS = (
    others_have_a_target,
    others_have_names_of_their_own,
    others_are_of_their_kind,
    other_generations_are_ancestors,
    guests_share_a_tokenizer,
    retrieved_texts_are_read,
    weights_weigh,
)
"""Asked of every manifest with the other checks (``ladder.manifest.checks``)."""
