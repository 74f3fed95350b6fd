"""What a manifest's fields must mean together: the lineage and the training, each check a function from manifest to
problems. Those of teachers and of the examination stand in files of their own; ``CHECKS`` has them all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from string import Formatter

from ladder.errors import ManifestError
from ladder.manifest import installed
from ladder.manifest.effective import DISTILLATION, WRITING, architecture, contexts, recipe, routing, teacher_field
from ladder.manifest.examination import EXAMINATION_CHECKS
from ladder.manifest.names import Name
from ladder.manifest.problems import Problem
from ladder.manifest.schema import Adapter, Dreams, EvolutionRequest, Manifest, Teacher
from ladder.manifest.schema_runtime import RAYS_OWN, ROLES
from ladder.manifest.steering import STEERING_CHECKS
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


def rehearsal_has_lessons(manifest: Manifest) -> Iterator[Problem]:
    """What fades is told by which ancestor left a row, so rows must be replayed and dreams begin with them."""
    wanted, dreams, field = manifest.stabilizers.rehearsal, manifest.stabilizers.dreams, "stabilizers.rehearsal"
    if wanted.shares == "even" and not wanted.older_teachers:
        return
    asked = "found lessons to rehearse"
    if manifest.evolution_request.parent_gen is None:
        yield Problem(field, f"{asked} without a parent_gen", "leave it out")
    elif not (manifest.stabilizers.replay_buffer and manifest.training_params.shares.replay > 0):
        yield Problem(
            field,
            f"{asked}, but no ancestor's rows are replayed",
            "write stabilizers.replay_buffer: true and a share of replay, or leave it out",
        )
    if wanted.older_teachers:
        yield from _dreams_are_of_lessons(dreams, f"{field}.older_teachers")


def _dreams_are_of_lessons(dreams: Dreams | bool | None, field: str) -> Iterator[Problem]:
    if dreams is False:
        yield Problem(field, "found teachers that would dream, but dreams are off", "write 0, or leave dreams out")
    elif isinstance(dreams, Dreams) and dreams.prompts not in ("auto", "replay"):
        yield Problem(
            field,
            f"found teachers of lessons, but dreams begin with {dreams.prompts!r}, which is no lesson's",
            "write 0, or stabilizers.dreams.prompts: replay",
        )
    elif isinstance(dreams, Dreams) and dreams.teacher != "teacher1":
        yield Problem(
            field,
            f"found teachers beside the parent, but {dreams.teacher} shall dream of everything",
            "write 0, or leave stabilizers.dreams.teacher out",
        )


def dreams_have_a_length(manifest: Manifest) -> Iterator[Problem]:
    dreams = manifest.stabilizers.dreams
    if isinstance(dreams, Dreams) and dreams.min_new_tokens > dreams.max_new_tokens:
        yield Problem(
            "stabilizers.dreams.min_new_tokens",
            f"found {dreams.min_new_tokens}, expected at most max_new_tokens {dreams.max_new_tokens}",
            "lower it: every dream would be dropped",
        )


def students_write_what_is_read(manifest: Manifest) -> Iterator[Problem]:
    """What belongs to the recipes by which the student writes, and what these need."""
    params, chosen, where = manifest.training_params, recipe(manifest), "training_params.written"
    if chosen not in WRITING:
        if params.written is not None:
            by = f"recipe {chosen}" if chosen else manifest.evolution_request.training_method
            message = f"found settings, but by {by} the student writes nothing"
            yield Problem(where, message, f"write training_params.recipe: {WRITING[0]}, or leave it out")
        return
    if manifest.evolution_request.parent_gen is None:
        message = f"found {chosen!r} without a parent_gen that scores what the student writes"
        yield Problem("training_params.recipe", message, "write surprise_kd, or leave it out")
    if params.shares.written == 0:
        message = f"found 0, but recipe {chosen} reads what the student writes"
        yield Problem("training_params.shares.written", message, "write a share above 0, or recipe: surprise_kd")
    own = params.written
    if own and own.rounds > params.steps:
        message = f"found {own.rounds} rounds in {params.steps} steps"
        yield Problem(f"{where}.rounds", message, f"write at most {params.steps}")
    if own and own.demonstration is not None:
        if chosen != "self_distillation":
            message = f"found a text, but by recipe {chosen} the parent reads none"
            yield Problem(f"{where}.demonstration", message, "write recipe: self_distillation, or leave it out")
        yield from _template(f"{where}.demonstration", own.demonstration)


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


def adapters_are_of_one_kind(manifest: Manifest) -> Iterator[Problem]:
    """What another kind of adapter has is not silently left alone."""
    adapter = manifest.student.adapter
    if adapter is None:
        return
    foreign = ("r", "alpha", "dropout") if adapter.kind == "osf" else ("unfreeze_rank_ratio",)
    for name in foreign:
        found, usual = getattr(adapter, name), Adapter.model_fields[name].default
        if found != usual:
            yield Problem(
                f"student.adapter.{name}",
                f"found {found} with kind {adapter.kind}, which has no {name}",
                "leave it out" + ("; unfreeze_rank_ratio says how much learns" if adapter.kind == "osf" else ""),
            )


def adapters_know_their_base(manifest: Manifest) -> Iterator[Problem]:
    """A length or a decomposition is that of the very weights that the adapter will be merged into."""
    adapter = manifest.student.adapter
    if adapter is None or adapter.kind == "lora":
        return
    needs = "the lengths of the rows" if adapter.kind == "dora" else "the singular values"
    if adapter.base != "full":
        message = f"found {adapter.base} with kind {adapter.kind}: {needs} of a quantised base are not the parent's"
        yield Problem("student.adapter.base", message, "write full, or kind: lora")
    if manifest.student.dtype != "float32":
        message = (
            f"found {manifest.student.dtype} with student.adapter.kind {adapter.kind}: {needs} of rounded weights are "
            "not those of the weights that it is merged into"
        )
        yield Problem("student.dtype", message, "write float32, or kind: lora")
    if adapter.kind == "osf" and manifest.runtime.student.sharding == "fsdp":
        message = "found 'fsdp' with student.adapter.kind osf: a gradient that is split cannot be projected"
        yield Problem("runtime.student.sharding", message, "write ddp, or kind: lora")


def contexts_are_templates(manifest: Manifest) -> Iterator[Problem]:
    method = manifest.evolution_request.training_method
    for number, template in contexts(manifest).items():
        field = f"{teacher_field(number)}.context"
        if not installed.method_facts(method).has_target:
            yield Problem(field, f"found a text, but no teacher reads rows in {method}", "leave it out")
        else:
            yield from _template(field, template)


def _template(field: str, template: str) -> Iterator[Problem]:
    if (wrong := _wrong_field(template)) is not None:
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
    rehearsal_has_lessons,
    dreams_have_a_length,
    students_write_what_is_read,
    wanted_sources_have_a_share,
    heads_divide_the_width,
    rows_fit_the_positions,
    adapter_has_targets,
    adapters_are_of_one_kind,
    adapters_know_their_base,
    contexts_are_templates,
    today_is_a_day,
)


CHECKS = (*_LINEAGE, *_TRAINING, *TEACHER_CHECKS, *STEERING_CHECKS, *EXAMINATION_CHECKS)
"""Each is asked of every manifest whose fields are valid one by one."""
