"""Whether the objective, the batches and the stabilizers can do what the manifest asks of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from string import Formatter

from ladder.manifest.effective import DISTILLATION, architecture, contexts, routing
from ladder.manifest.installed import method_facts
from ladder.manifest.problems import Problem
from ladder.manifest.schema import Dreams, Manifest

CONTEXT_FIELDS = ("prompt", "completion", "text", "context")
"""What ``teachers.*.context`` may name. Of messages, the last but one is the prompt and the last one the completion."""


def recipe_is_for_distillation(manifest: Manifest) -> Iterator[Problem]:
    method, params = manifest.evolution_request.training_method, manifest.training_params
    if method_facts(method).has_target:
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
    if method_facts(manifest.evolution_request.training_method).has_target and params.alpha + params.beta == 0:
        yield Problem(
            "training_params.alpha",
            "alpha and beta are both 0, expected at least one above 0",
            "write alpha (gold labels) or beta (teachers); the defaults are 0.1 and 0.9",
        )


def sequences_are_not_surprised(manifest: Manifest) -> Iterator[Problem]:
    if manifest.training_params.granularity != "sequence":
        return
    if not method_facts(manifest.evolution_request.training_method).has_target:
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
        field = f"teachers.teacher{number}.context"
        if not method_facts(method).has_target:
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


CHECKS = (
    recipe_is_for_distillation,
    objective_has_weight,
    sequences_are_not_surprised,
    batch_splits_evenly,
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
