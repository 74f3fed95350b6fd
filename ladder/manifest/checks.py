"""What a manifest's fields must mean together, and whether what it names is installed.

In four parts: the lineage, the training, the examination, and the plug-ins; each check of the first three is a function
from manifest to problems.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from importlib.util import find_spec
from string import Formatter

from ladder.errors import ManifestError
from ladder.manifest import installed
from ladder.manifest.effective import DISTILLATION, architecture, contexts, routing, teacher_field
from ladder.manifest.files import named_files, named_folders
from ladder.manifest.names import Name
from ladder.manifest.problems import Problem, found
from ladder.manifest.schema import (
    GATES,
    RAYS_OWN,
    ROLES,
    Dreams,
    EvolutionRequest,
    Laws,
    Manifest,
    MetricGate,
    Teacher,
)
from ladder.manifest.teachers import TEACHER_CHECKS

# Lineage: who may come from whom, what the student starts as, and who its teachers are.

_FIELDS = ("child_gen", "parent_gen", "grandparent_gen")


def names_are_names(manifest: Manifest) -> Iterator[Problem]:
    for field in _FIELDS:
        text = getattr(manifest.evolution_request, field)
        try:
            if text is not None:
                Name.parse(text)
        except ManifestError as error:
            yield Problem(f"evolution_request.{field}", error.message, error.remedy or "")


def one_family(manifest: Manifest) -> Iterator[Problem]:
    names = _names(manifest.evolution_request)
    child = names.get("child_gen")
    for field in ("parent_gen", "grandparent_gen"):
        name = names.get(field)
        if child and name and name.family != child.family:
            yield Problem(
                f"evolution_request.{field}",
                f"found {name} of the family {name.family!r}, expected the child's family {child.family!r}",
                f"write {child.family}-G{name.index:03d}, or import that model into the family {child.family} first",
            )


def ages_descend(manifest: Manifest) -> Iterator[Problem]:
    names = _names(manifest.evolution_request)
    for younger, older in (("child_gen", "parent_gen"), ("parent_gen", "grandparent_gen")):
        young, old = names.get(younger), names.get(older)
        if young and old and young.index <= old.index:
            yield Problem(
                f"evolution_request.{younger}",
                f"found {young}, expected an index above {old} ({older})",
                "count upwards; gaps in the numbers are allowed",
            )


def grandparent_needs_parent(manifest: Manifest) -> Iterator[Problem]:
    request = manifest.evolution_request
    if request.grandparent_gen is not None and request.parent_gen is None:
        yield Problem(
            "evolution_request.grandparent_gen",
            f"found {request.grandparent_gen!r} without a parent_gen",
            "name the parent as well, or leave the grandparent out",
        )


def branch_needs_parent(manifest: Manifest) -> Iterator[Problem]:
    if manifest.evolution_request.branch and manifest.evolution_request.parent_gen is None:
        yield Problem("evolution_request.branch", "found true without a parent_gen", "leave branch out of a genesis")


def pretraining_starts_from_nothing(manifest: Manifest) -> Iterator[Problem]:
    request, student = manifest.evolution_request, manifest.student
    if not installed.method_facts(request.training_method).starts_at_random:
        return
    method = f"training_method {request.training_method} initialises the student at random"
    if request.parent_gen is not None:
        yield Problem(
            "evolution_request.parent_gen",
            f"found {request.parent_gen!r}, but {method}",
            "leave parent_gen out, or use continual_pretraining",
        )
    if student.model is not None:
        yield Problem("student.model", f"found a folder, but {method}", "leave it out, or use continual_pretraining")
    if student.adapter is not None:
        yield Problem("student.adapter", f"found an adapter, but {method}", "train all weights: leave adapter out")


def others_start_from_something(manifest: Manifest) -> Iterator[Problem]:
    request, student = manifest.evolution_request, manifest.student
    method = request.training_method
    facts = installed.method_facts(method)
    if facts.starts_at_random or request.parent_gen is not None:
        return
    if facts.needs_parent:
        yield Problem(
            "evolution_request.parent_gen",
            f"is missing: {method} needs a parent, which is teacher 1",
            "name the parent; a first generation comes from pretraining or is imported",
        )
    elif student.model is None:
        yield Problem(
            "evolution_request.parent_gen",
            f"is missing: {method} needs something to start from",
            "name the parent, or for a first generation an existing folder in student.model",
        )


def student_starts_from_parent(manifest: Manifest) -> Iterator[Problem]:
    request = manifest.evolution_request
    parent, facts = request.parent_gen, installed.method_facts(request.training_method)
    if manifest.student.model is not None and not facts.starts_at_random and parent:
        yield Problem(
            "student.model",
            f"found a folder beside parent_gen {parent}, but a student always starts as a copy of its parent",
            "leave student.model out; to give the parent's folder, write teachers.teacher1.path",
        )


def architecture_is_for_pretraining(manifest: Manifest) -> Iterator[Problem]:
    method = manifest.evolution_request.training_method
    if manifest.student.architecture is not None and not installed.method_facts(method).starts_at_random:
        yield Problem(
            "student.architecture",
            f"found an architecture, but {method} keeps the one it starts from",
            "leave it out, or use training_method pretraining",
        )


def teachers_are_ancestors(manifest: Manifest) -> Iterator[Problem]:
    names = _names(manifest.evolution_request)
    pairs = (
        ("teacher1", manifest.teachers.teacher1, "parent_gen", "primary"),
        ("teacher2", manifest.teachers.teacher2, "grandparent_gen", "stabilizing_critic"),
    )
    for key, teacher, field, role in pairs:
        if teacher is not None:
            yield from _teacher_exists(manifest, key, teacher, field)
            yield from _teacher_agrees(key, teacher, names.get(field), field, role)


def _teacher_exists(manifest: Manifest, key: str, teacher: Teacher, field: str) -> Iterator[Problem]:
    given = key == "teacher2" or teacher != Teacher()
    if given and getattr(manifest.evolution_request, field) is None:
        message = f"found a teacher, but evolution_request.{field} is missing"
        yield Problem(f"teachers.{key}", message, f"write {field}, or leave {key} out")


def _teacher_agrees(key: str, teacher: Teacher, name: Name | None, field: str, role: str) -> Iterator[Problem]:
    if teacher.gen is not None and name is not None and teacher.gen != name.index:
        yield Problem(
            f"teachers.{key}.gen",
            f"found {teacher.gen}, expected {name.index} as in evolution_request.{field} {name}",
            f"write {name.index}, or leave it out",
        )
    if teacher.role not in (None, role):
        yield Problem(
            f"teachers.{key}.role",
            f"found {teacher.role!r}, expected {role!r}",
            "teacher 1 is the primary (the parent), teacher 2 the stabilizing_critic (the grandparent)",
        )


def _names(request: EvolutionRequest) -> dict[str, Name]:
    """The names that are names; `names_are_names` reports the others."""
    names: dict[str, Name] = {}
    for field in _FIELDS:
        try:
            names[field] = Name.parse(getattr(request, field) or "")
        except ManifestError:
            continue
    return names


_LINEAGE = (
    names_are_names,
    one_family,
    ages_descend,
    grandparent_needs_parent,
    branch_needs_parent,
    pretraining_starts_from_nothing,
    others_start_from_something,
    student_starts_from_parent,
    architecture_is_for_pretraining,
    teachers_are_ancestors,
)


# Training: whether the objective, the batches and the stabilizers can do what is asked of them.

CONTEXT_FIELDS = ("prompt", "completion", "text", "context")
"""What ``teachers.*.context`` may name. Of messages, the last but one is the prompt and the last one the completion."""


def recipe_is_for_distillation(manifest: Manifest) -> Iterator[Problem]:
    method, params = manifest.evolution_request.training_method, manifest.training_params
    if installed.method_facts(method).has_target:
        return
    for field in ("recipe", "routing"):
        if (value := getattr(params, field)) is not None:
            yield Problem(
                f"training_params.{field}",
                f"found {value!r}, but {method} has no teachers' target to route",
                f"leave it out, or use training_method {DISTILLATION}",
            )


def objective_has_weight(manifest: Manifest) -> Iterator[Problem]:
    params = manifest.training_params
    if (
        installed.method_facts(manifest.evolution_request.training_method).has_target
        and params.alpha + params.beta == 0
    ):
        yield Problem(
            "training_params.alpha",
            "alpha and beta are both 0, expected at least one above 0",
            "write alpha (gold labels) or beta (teachers); the defaults are 0.1 and 0.9",
        )


def sequences_are_not_surprised(manifest: Manifest) -> Iterator[Problem]:
    if manifest.training_params.granularity != "sequence":
        return
    if not installed.method_facts(manifest.evolution_request.training_method).has_target:
        yield Problem("training_params.granularity", "found 'sequence' where nothing is routed", "leave it out")
    elif routing(manifest) == "surprise":
        yield Problem(
            "training_params.granularity",
            "found 'sequence' with surprise routing: the mean over a row hides the one surprising token",
            "write routing: agreement or recipe: logit_blending_kd, or granularity: token",
        )


def batch_splits_evenly(manifest: Manifest) -> Iterator[Problem]:
    """A whole number of rows for each micro-batch on average; none is empty."""
    rows, parts = manifest.training_params.batch_size, manifest.training_params.accumulation
    if rows % parts:
        enough = -(-rows // parts) * parts
        yield Problem(
            "training_params.batch_size",
            f"found {rows} rows for {parts} accumulation steps, expected a multiple of {parts}",
            f"write batch_size {enough}; it counts the rows of all accumulation steps together",
        )


def variances_mean_something(manifest: Manifest) -> Iterator[Problem]:
    """What belongs to ``temperature: variance``, and what cannot go with it."""
    params, student, runtime = manifest.training_params, manifest.student, manifest.runtime
    varies, where = params.temperature == "variance", "training_params.variance"
    if params.variance and params.variance.low > params.variance.high:
        found_ = f"found {params.variance.low:g} above high, which is {params.variance.high:g}"
        yield Problem(f"{where}.low", found_, "lower it, or raise high")
    if not varies and params.variance:
        message = f"found settings, but training_params.temperature is {params.temperature:g}"
        yield Problem(where, message, "write temperature: variance, or leave it out")
    if not varies and student.variance_head:
        message = f"found true, but training_params.temperature is {params.temperature:g}"
        yield Problem("student.variance_head", message, "write temperature: variance, or leave it out")
    if varies and runtime.wire == "topk":
        message = "found 'topk', which keeps the mass of the rest at one temperature, but that varies"
        yield Problem("runtime.wire", message, "write hidden or logits")
    own = params.variance
    if student.variance_head and own and (own.base >= own.high or not own.slope * own.exponent * own.head_scale):
        message = "found true, but with these settings no variance moves the temperature between its bounds"
        yield Problem("student.variance_head", message, "write a base below high, and nothing that is 0")
    if student.variance_head and runtime.student.sharding == "fsdp":
        message = "found true with runtime.student.sharding fsdp: a head that is split cannot be read for its variances"
        yield Problem("student.variance_head", message, "write ddp, or leave it out")


def ranks_have_work_to_share(manifest: Manifest) -> Iterator[Problem]:
    """Several ranks share a step's rows, and something must bring their gradients together."""
    student, ranks, params = manifest.runtime.student, manifest.runtime.student.ranks, manifest.training_params
    lora = manifest.student.adapter
    if student.sharding == "fsdp" and lora is not None and lora.base == "nf4":
        where = "runtime.student.sharding"
        yield Problem(where, "found 'fsdp' with a base in 4 bits, which cannot be taken apart", "write ddp")
    if ranks == 1:
        return
    if student.sharding == "none":
        yield Problem("runtime.student.sharding", f"found 'none' for {ranks} ranks", "write ddp, fsdp or auto")
    if ranks != "auto" and ranks * params.accumulation > params.batch_size:
        yield Problem(
            "runtime.student.ranks",
            f"found {ranks} ranks with {params.accumulation} micro-batches each for {params.batch_size} rows a step",
            f"write {max(1, params.batch_size // params.accumulation)} ranks, or a larger training_params.batch_size",
        )
    if manifest.runtime.share_base == "on":
        yield Problem(
            "runtime.share_base",
            f"found 'on' with {ranks} ranks: teachers that speak through the student's base switch its adapters, which "
            "several ranks cannot do between their steps",
            "write auto, or one rank",
        )


def resources_can_be_taken(manifest: Manifest) -> Iterator[Problem]:
    """Of Ray's own resources ladder takes what a role needs; of others Ray hands out shares of one, or whole ones."""
    for role in (*ROLES, "others"):
        for name, amount in manifest.runtime.devices.of(role).resources.items():
            field = f"runtime.devices.{role}.resources.{name}"
            if name in RAYS_OWN:
                message = (
                    f"found {name}, which Ray counts itself, expected a resource that `ray start --resources` names"
                )
                yield Problem(field, message, "leave it out; `device` says where it lives")
            elif amount > 1 and amount != int(amount):
                yield Problem(
                    field, f"found {amount:g}, expected at most 1 or a whole number", f"write {int(amount) + 1}"
                )


def replicas_have_models_of_their_own(manifest: Manifest) -> Iterator[Problem]:
    """A teacher that speaks through the student's base has no process of its own that could be there twice."""
    replicas = manifest.runtime.teachers.replicas
    if manifest.runtime.share_base == "on" and replicas not in (1, "auto"):
        yield Problem(
            "runtime.share_base",
            f"found 'on' with {replicas} replicas of each teacher, but the student's base has one process",
            "write auto, or runtime.teachers.replicas: 1",
        )


def packed_rows_are_not_grouped(manifest: Manifest) -> Iterator[Problem]:
    """Long and short rows fill a sequence together; rows of one length often do not."""
    if manifest.data is not None and manifest.data.packing and manifest.data.group_by_length:
        yield Problem(
            "data.group_by_length",
            "found true with packing, which leaves no padding to save and packs rows of mixed lengths better",
            "write data.group_by_length: false, or data.packing: false",
        )


def masking_has_words(manifest: Manifest) -> Iterator[Problem]:
    stabilizers = manifest.stabilizers
    if stabilizers.token_masking and not (stabilizers.taboo_words or stabilizers.taboo_token_ids):
        yield Problem(
            "stabilizers.token_masking",
            "found true, but nothing is taboo",
            "list stabilizers.taboo_words or taboo_token_ids, or write false",
        )
    for field in ("taboo_words", "taboo_token_ids"):
        if getattr(stabilizers, field) and not stabilizers.token_masking:
            yield Problem(
                f"stabilizers.{field}",
                "found a list, but token_masking is false",
                "write stabilizers.token_masking: true, or leave the list out",
            )


def dreams_have_a_dreamer(manifest: Manifest) -> Iterator[Problem]:
    request, dreams = manifest.evolution_request, manifest.stabilizers.dreams
    if not dreams:
        return
    if request.parent_gen is None:
        yield Problem("stabilizers.dreams", "found dreams without a parent_gen to dream them", "leave dreams out")
    elif isinstance(dreams, Dreams) and dreams.teacher != "teacher1" and request.grandparent_gen is None:
        yield Problem(
            "stabilizers.dreams.teacher",
            f"found {dreams.teacher!r}, but evolution_request.grandparent_gen is missing",
            "write teacher1, or name the grandparent",
        )


def dreams_have_a_length(manifest: Manifest) -> Iterator[Problem]:
    dreams = manifest.stabilizers.dreams
    if isinstance(dreams, Dreams) and dreams.min_new_tokens > dreams.max_new_tokens:
        yield Problem(
            "stabilizers.dreams.min_new_tokens",
            f"found {dreams.min_new_tokens}, expected at most max_new_tokens {dreams.max_new_tokens}",
            "lower it: every dream would be dropped",
        )


def wanted_sources_have_a_share(manifest: Manifest) -> Iterator[Problem]:
    shares, stabilizers = manifest.training_params.shares, manifest.stabilizers
    wanted = {
        "dreams": ("dreams", bool(stabilizers.dreams)),
        "replay": ("replay_buffer", stabilizers.replay_buffer and "replay_buffer" in stabilizers.model_fields_set),
    }
    for share, (field, is_wanted) in wanted.items():
        if is_wanted and getattr(shares, share) == 0:
            yield Problem(
                f"training_params.shares.{share}",
                f"found 0, but stabilizers.{field} asks for {share}",
                f"write a share above 0, or stabilizers.{field}: false",
            )


def heads_divide_the_width(manifest: Manifest) -> Iterator[Problem]:
    shape = manifest.student.architecture
    if shape is None:
        return
    if shape.hidden % (2 * shape.heads):
        yield Problem(
            "student.architecture.hidden",
            f"found {shape.hidden}, expected an even multiple of heads {shape.heads}",
            f"write a multiple of {2 * shape.heads}: rotary positions pair the dimensions of a head",
        )
    if shape.kv_heads is not None and shape.heads % shape.kv_heads:
        yield Problem(
            "student.architecture.kv_heads",
            f"found {shape.kv_heads}, expected a divisor of heads {shape.heads}",
            "leave it out for one key and value head per head",
        )


def rows_fit_the_positions(manifest: Manifest) -> Iterator[Problem]:
    shape, data = architecture(manifest), manifest.data
    if shape is not None and data is not None and data.max_length > shape.max_positions:
        yield Problem(
            "data.max_length",
            f"found {data.max_length}, expected at most student.architecture.max_positions {shape.max_positions}",
            "shorten the rows or raise max_positions",
        )


def adapter_has_targets(manifest: Manifest) -> Iterator[Problem]:
    adapter = manifest.student.adapter
    if adapter is None or isinstance(adapter.target_modules, str):
        return
    if not all(adapter.target_modules) or not adapter.target_modules:
        yield Problem(
            "student.adapter.target_modules", "found no module name", "write all-linear or the modules' names"
        )


def contexts_are_templates(manifest: Manifest) -> Iterator[Problem]:
    method = manifest.evolution_request.training_method
    for number, template in contexts(manifest).items():
        field = f"{teacher_field(number)}.context"
        if not installed.method_facts(method).has_target:
            yield Problem(field, f"found a text, but no teacher reads rows in {method}", "leave it out")
        elif (wrong := _wrong_field(template)) is not None:
            known = ", ".join(f"{{{name}}}" for name in CONTEXT_FIELDS)
            yield Problem(field, f"found {wrong}, expected any of {known}", "write a brace that is meant as one twice")


def _wrong_field(template: str) -> str | None:
    """The first replacement field that is not plainly a row's, or a brace that stands alone."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        return str(error)
    for _, name, form, conversion in parts:
        if name is not None and (name not in CONTEXT_FIELDS or form or conversion):
            return f"{{{name}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}}}"
    return None


def today_is_a_day(manifest: Manifest) -> Iterator[Problem]:
    today = manifest.data.today if manifest.data else None
    if today is None:
        return
    try:
        date.fromisoformat(today)
    except ValueError as error:
        yield Problem("data.today", f"found {today!r}, which is no day: {error}", "write one such as 2026-07-01")


_TRAINING = (
    recipe_is_for_distillation,
    objective_has_weight,
    sequences_are_not_surprised,
    batch_splits_evenly,
    ranks_have_work_to_share,
    variances_mean_something,
    resources_can_be_taken,
    replicas_have_models_of_their_own,
    packed_rows_are_not_grouped,
    masking_has_words,
    dreams_have_a_dreamer,
    dreams_have_a_length,
    wanted_sources_have_a_share,
    heads_divide_the_width,
    rows_fit_the_positions,
    adapter_has_targets,
    contexts_are_templates,
    today_is_a_day,
)


# Examination: whether data, gates, laws and budget are written so that they can be applied.

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
    if tone.measure == "readout":
        yield Problem(
            "gates.tone.measure",
            "found 'readout', which is a reserved name: ladder cannot measure a tone that way yet",
            "write stylometric or embedding",
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


def metric_gates_have_names_of_their_own(manifest: Manifest) -> Iterator[Problem]:
    taken = {*GATES, *(["calibration"] if manifest.gates.calibration else [])}
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


_EXAMINATION = (
    paths_can_be_paths,
    train_files_are_named_once,
    tone_has_a_reference,
    tone_measure_is_complete,
    metric_gates_have_names_of_their_own,
    metric_gates_can_fail,
    calibration_gate_can_fail,
    stops_are_not_empty,
    patterns_can_tell_texts_apart,
    only_prompts_are_chat,
    limits_have_figures,
    budget_covers_the_steps,
    training_laws_can_be_examined,
)


CHECKS = (*_LINEAGE, *_TRAINING, *TEACHER_CHECKS, *_EXAMINATION)
"""Each is asked of every manifest whose fields are valid one by one."""


# What is named: whether it is installed, once, and can be imported; plug-ins, and the harness of other suites.

_OWN_LAWS = ("sources", "budget", "parent_unchanged", "taboo")
"""Laws of ladder's own that have no field under ``laws``."""


def used_plugins(manifest: Manifest) -> dict[str, dict[str, str]]:
    """What a manifest names that is not ladder's own, by group and name, with the distribution that has it now."""
    used: dict[str, dict[str, str]] = {}
    for _, group, name in _named(manifest):
        used.setdefault(group, {})[name] = (
            " and ".join(map(installed.origin, installed.plugins(group, name))) or "not installed"
        )
    return used


def broken_plugins(manifest: Manifest) -> list[Problem]:
    """Plug-ins that the manifest names and that are installed, but cannot be imported or are not what they should be.
    It is known before anything is trained."""
    problems = []
    for field, group, name in _named(manifest):
        if len(installed.plugins(group, name)) != 1:
            continue  # another problem tells of that
        try:
            found = installed.load(group, name, field)
        except ManifestError as error:
            problems.append(Problem(field, error.message, error.remedy or ""))
            continue
        parts = (
            [getattr(found, part, None) for part in ("make", "state_bytes")]
            if group == installed.OPTIMIZERS
            else [found]
        )
        if not all(map(callable, parts)):
            wanted = (
                "something with the functions make and state_bytes" if group == installed.OPTIMIZERS else "a callable"
            )
            problems.append(Problem(field, f"{name!r} is {found!r:.80}, expected {wanted}", "see docs/extending.md"))
    return problems


def _named(manifest: Manifest) -> list[tuple[str, str, str]]:
    """``(field, group, name)`` of everything that a manifest names and that is not ladder's own."""
    shape = manifest.student.architecture
    named = [
        ("evolution_request.training_method", installed.METHODS, manifest.evolution_request.training_method),
        ("training_params.optimizer", installed.OPTIMIZERS, manifest.training_params.optimizer),
        *([("student.architecture.family", installed.FAMILIES, shape.family)] if shape else []),
        *((f"teachers.others.{n}.kind", installed.TEACHERS, o.kind) for n, o in enumerate(manifest.teachers.others)),
        *(("gates.custom", installed.GATES, name) for name in manifest.gates.custom),
        *(("laws.custom", installed.LAWS, name) for name in manifest.laws.custom),
    ]
    return [(field, group, name) for field, group, name in named if name not in installed.OWN.get(group, ())]


def suite_problems(manifest: Manifest) -> list[Problem]:
    """The harness where a gate needs it and it is not there."""
    if not manifest.gates.metrics or find_spec("lm_eval") is not None:
        return []
    message = "needs lm-evaluation-harness, which is not installed"
    return [Problem("gates.metrics.0.source", message, "pip install 'generation-ladder[suites]'")]


def custom_law_problems(manifest: Manifest) -> list[Problem]:
    """Laws that the manifest names and that are not there, or not the only ones of their name."""
    own = {*type(manifest.laws).model_fields, *_OWN_LAWS}
    return _custom_problems("laws.custom", installed.LAWS, "law", manifest.laws.custom, own)


def custom_gate_problems(manifest: Manifest) -> list[Problem]:
    """The same of gates."""
    gates = manifest.gates
    own = {*type(gates).model_fields, "laws", *(gate.name for gate in gates.metrics)}
    own -= set() if gates.calibration else {"calibration"}
    return _custom_problems("gates.custom", installed.GATES, "gate", gates.custom, own)


def _custom_problems(field: str, group: str, noun: str, names: Iterable[str], own: Iterable[str]) -> list[Problem]:
    problems = []
    for name, count in Counter(names).items():
        found = len(installed.plugins(group, name))
        if name in own:
            problems.append(Problem(field, f"{name!r} is a {noun} of ladder's own", "give yours another name"))
        elif count > 1:
            problems.append(Problem(field, f"{name!r} is named {count} times", f"name each {noun} once"))
        elif found != 1:
            problems.append(
                Problem(field, f"{name!r} is installed {found} times, expected once", installed.advice(group))
            )
    return problems
