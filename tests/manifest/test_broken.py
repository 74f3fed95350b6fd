"""Broken manifests: each names the field that is wrong and says what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from ladder.errors import ManifestError
from ladder.manifest import load_manifest, read_request

GONE = "<take this key out>"
REQUEST = "evolution_request."
GENESIS = {REQUEST + "parent_gen": GONE, REQUEST + "grandparent_gen": GONE}
PRETRAINING = {**GENESIS, REQUEST + "training_method": "pretraining"}
FINE_TUNING = {REQUEST + "training_method": "supervised_fine_tuning"}
OTHERS = "teachers.others"
REHEARSAL = "stabilizers.rehearsal"
GUEST = {"name": "elder", "kind": "guest", "path": "elder"}
TAUGHT = {**GENESIS, REQUEST + "training_method": "distilled_pretraining"}
COUNTS = {"name": "corpus", "kind": "counts", "files": ["data/more.jsonl"]}
LOOKS_UP = {"retrieval": {"files": ["data/more.jsonl"]}}
T1, PARAMS = "teachers.teacher1", "training_params."
LAW, TONE, DREAMS = "laws.forbidden_text", "gates.tone.", "stabilizers.dreams"

ON_POLICY = {PARAMS + "recipe": "on_policy_kd"}
STEER = {"vectors": "data", "concepts": {"calm": 1}}
STEERS = {
    REQUEST + "training_method": "steering_distillation",
    REQUEST + "grandparent_gen": GONE,
    "steering": STEER,
}

# What is changed in a valid manifest, the field that the error names, and a piece of its text.
VARIES = {"training_params.temperature": "variance"}
BROKEN: list[tuple[dict[str, Any], str, str]] = [
    # keys
    ({"training_params.alfa": 1.0}, "training_params.alfa", "did you mean 'alpha'?"),
    ({"training_params.batch-size": 4}, "training_params.batch-size", "did you mean 'batch_size'?"),
    ({"lr": 1e-4}, "lr", "write training_params.lr"),
    (
        {"stabilizers.temperature": 1.0},
        "stabilizers.temperature",
        "training_params.written.temperature or stabilizers.dr",
    ),
    ({DREAMS: {"cuont": 3}}, "stabilizers.dreams.cuont", "did you mean 'count'?"),
    ({"training_params.qqq": 1}, "training_params.qqq", "known here: recipe, alpha"),
    ({REQUEST + "child_gen": GONE}, REQUEST + "child_gen", "is missing (write it: Name of the generation"),
    ({"evolution_request": GONE}, "evolution_request", "is missing (write it: Who comes from whom"),
    # types and ranges
    ({"training_params.lr": "1e-5"}, "training_params.lr", "found '1e-5', expected a number (write it without quotes"),
    ({"training_params.steps": 1.5}, "training_params.steps", "found 1.5, expected a whole number"),
    ({"training_params.steps": True}, "training_params.steps", "found true, expected a whole number"),
    ({"training_params.steps": 10**400}, "training_params.steps", "expected less than 9007199254740992"),
    ({"training_params.alpha": -0.1}, "training_params.alpha", "found -0.1, expected at least 0 (Weight of cross"),
    ({"training_params.temperature": 0}, "training_params.temperature", "expected more than 0"),
    ({"training_params.temperature": "mean"}, "training_params.temperature", "'variance'"),
    ({"training_params.variance": {"low": 0.9}}, "training_params.variance", "training_params.temperature is 2"),
    ({**VARIES, "training_params.variance": {"low": 2}}, "training_params.variance.low", "found 2 above high"),
    ({**VARIES, "runtime.wire": "topk"}, "runtime.wire", "the mass of the rest at one temperature"),
    ({"student.variance_head": True}, "student.variance_head", "write temperature: variance"),
    (
        {**VARIES, "student.variance_head": True, "training_params.variance": {"slope": 0}},
        "student.variance_head",
        "no variance moves the temperature",
    ),
    (
        {**VARIES, "student.variance_head": True, "runtime.student": {"ranks": 2, "sharding": "fsdp"}},
        "student.variance_head",
        "a head that is split",
    ),
    # A word of a name means that name, whichever other one is spelt more like it.
    (
        {REQUEST + "training_method": "distillation"},
        REQUEST + "training_method",
        "did you mean 'teacher_student_distillation'?",
    ),
    ({REQUEST + "training_method": "fine-tuning"}, REQUEST + "training_method", "mean 'supervised_fine_tuning'?"),
    ({"training_params.tau": 0.3}, "training_params.tau", "did you mean 'surprise_tau'?"),
    ({"training_params.routing": "suprise"}, "training_params.routing", "did you mean 'surprise'?"),
    ({"stabilizers.ema": "yes"}, "stabilizers.ema", "found 'yes', expected true or false"),
    ({"stabilizers.ema_decay": 1.0}, "stabilizers.ema_decay", "expected less than 1"),
    ({DREAMS: "on"}, "stabilizers.dreams", "expected a section of keys and values or true or false"),
    ({"student.adapter": {"target_modules": 5}}, "student.adapter.target_modules", "a list or 'all-linear'"),
    ({"data.train": "data/train.jsonl"}, "data.train", 'write ["data/train.jsonl"]'),
    ({"data.train": []}, "data.train", "expected at least one entry"),
    ({"data.train": [7]}, "data.train.0", "found 7, expected text"),
    ({"gates": 3}, "gates", "expected a section of keys and values"),
    ({"runtime.devices": {"student": "gpu"}}, "runtime.devices.student", "expected text of the form"),
    (
        {"runtime.devices": {"student": {"device": "gpu"}}},
        "runtime.devices.student.device",
        "expected text of the form",
    ),
    ({"runtime.devices": {"student": 1}}, "runtime.devices.student", "or a section of keys and values"),
    ({"runtime.devices": {"student": {"label": {}}}}, "runtime.devices.student.label", "did you mean 'labels'?"),
    ({"runtime.devices": {"student": {"labels": {"rack": 1}}}}, "runtime.devices.student.labels.rack", "put it in quo"),
    ({"runtime.devices": {"student": {"resources": {"x": 0}}}}, "runtime.devices.student.resources.x", "more than 0"),
    ({"runtime.devices": {"student": {"resources": {"x": 1.5}}}}, "runtime.devices.student.resources.x", "write 2"),
    ({"runtime.devices": {"student": {"resources": {"GPU": 1}}}}, "runtime.devices.student.resources.GPU", "leave it"),
    ({"runtime.devices": {"student.1": "cpu"}}, "runtime.devices.'student.1'", "did you mean 'student'?"),
    ({"runtime.wire": "top-k"}, "runtime.wire", "did you mean 'topk'?"),
    ({"runtime.top_k": 0}, "runtime.top_k", "expected at least 1"),
    (
        {"runtime.student": {"ranks": 2, "sharding": "none"}},
        "runtime.student.sharding",
        "found 'none' for 2 ranks (write",
    ),
    ({"runtime.student": {"ranks": "auto", "sharding": "none"}}, "runtime.student.sharding", "'none' for auto ranks"),
    (
        {"runtime.student": {"ranks": 99}},
        "runtime.student.ranks",
        "found 99 ranks with 1 micro-batches each for 16 rows",
    ),
    (
        {"runtime.student": {"ranks": "auto"}, "runtime.share_base": "on", "student.adapter": {}},
        "runtime.share_base",
        "found 'on' with auto ranks",
    ),
    (
        {"runtime.student": {"sharding": "fsdp"}, "student.adapter": {"base": "nf4"}},
        "runtime.student.sharding",
        "found 'fsdp' with a base in 4 bits",
    ),
    ({"runtime.teachers": {"replicas": 0}}, "runtime.teachers.replicas", "expected at least 1"),
    (
        {"runtime.teachers": {"replicas": 2}, "runtime.share_base": "on"},
        "runtime.share_base",
        "found 'on' with 2 replicas of each teacher, but the student's base has one process (write auto",
    ),
    ({"runtime.signal_cache": False}, "runtime.signal_cache", "'memory'"),
    ({"runtime.signal_cache_gib": 0}, "runtime.signal_cache_gib", "expected more than 0"),
    ({"training_params.lr": float("nan")}, "training_params.lr", "found nan, expected a finite number"),
    ({"training_params.lr": float("inf")}, "training_params.lr", "expected a finite number"),
    # what no manifest may hold
    ({"data.train": ["${HOME}/x.jsonl"]}, "data.train.0", "never interpolates"),
    ({"evolution_request.${USER}": 1}, "evolution_request.'${USER}'", "never interpolates"),
    ({"evolution_request.note": "a\0b"}, "evolution_request.note", "no text"),
    ({"evolution_request.note": "\ud800"}, "evolution_request.note", "no text"),
    # lineage
    ({REQUEST + "child_gen": "Luna-11"}, REQUEST + "child_gen", "Luna-G010"),
    ({REQUEST + "child_gen": "../x-G011"}, REQUEST + "child_gen", "is no generation name"),
    ({REQUEST + "child_gen": "L" + "-l" * 32 + "-G011"}, REQUEST + "child_gen", "at most 64"),
    ({REQUEST + "parent_gen": "Sol-G010"}, REQUEST + "parent_gen", "write Luna-G010"),
    ({REQUEST + "parent_gen": "Luna-G011"}, REQUEST + "child_gen", "expected an index above Luna-G011"),
    ({REQUEST + "grandparent_gen": "Luna-G010"}, REQUEST + "parent_gen", "gaps in the numbers are allowed"),
    ({**FINE_TUNING, REQUEST + "parent_gen": GONE}, REQUEST + "grandparent_gen", "name the parent as well"),
    ({**PRETRAINING, REQUEST + "branch": True}, REQUEST + "branch", "leave branch out"),
    ({REQUEST + "training_method": "pretraining"}, REQUEST + "parent_gen", "use continual_pretraining"),
    ({**PRETRAINING, "student.model": "m"}, "student.model", "initialises the student at random"),
    ({**PRETRAINING, "student.adapter": {}}, "student.adapter", "train all weights"),
    (GENESIS, REQUEST + "parent_gen", "is missing: teacher_student_distillation needs a parent"),
    ({**GENESIS, **FINE_TUNING}, REQUEST + "parent_gen", "an existing folder in student.model"),
    ({"student.model": "m"}, "student.model", "write teachers.teacher1.path"),
    ({"student.architecture": {}}, "student.architecture", "use training_method pretraining"),
    ({"teachers.teacher1": {"gen": 9}}, "teachers.teacher1.gen", "found 9, expected 10"),
    ({"teachers.teacher2": {"gen": 10}}, "teachers.teacher2.gen", "write 9, or leave it out"),
    ({"teachers.teacher1": {"role": "stabilizing_critic"}}, "teachers.teacher1.role", "expected 'primary'"),
    ({"teachers.teacher2": {"role": "primary"}}, "teachers.teacher2.role", "expected 'stabilizing_critic'"),
    ({"teachers.teacher2": {}, REQUEST + "grandparent_gen": GONE}, "teachers.teacher2", "write grandparent_gen"),
    ({**PRETRAINING, "teachers.teacher1": {"gen": 0}}, "teachers.teacher1", "write parent_gen"),
    # rehearsal
    ({**PRETRAINING, REHEARSAL: {"shares": "fading"}}, REHEARSAL, "found lessons to rehearse without a parent_gen"),
    (
        {REHEARSAL: {"older_teachers": 1}, "stabilizers.replay_buffer": False},
        REHEARSAL,
        "no ancestor's rows are replayed",
    ),
    (
        {REHEARSAL: {"older_teachers": 1}, "stabilizers.dreams": False},
        REHEARSAL + ".older_teachers",
        "found teachers that would dream, but dreams are off",
    ),
    (
        {REHEARSAL: {"older_teachers": 1}, "stabilizers.dreams": {"prompts": "start"}},
        REHEARSAL + ".older_teachers",
        "dreams begin with 'start', which is no lesson's",
    ),
    (
        {REHEARSAL: {"older_teachers": 1}, "stabilizers.dreams": {"teacher": "both"}},
        REHEARSAL + ".older_teachers",
        "but both shall dream of everything",
    ),
    # further teachers
    ({OTHERS: [GUEST | {"kind": "gest"}]}, OTHERS + ".0.kind", "did you mean 'guest'?"),
    ({OTHERS: [GUEST | {"kind": "oracle"}]}, OTHERS + ".0.kind", "expected 'generation', 'guest', 'counts', 'retriev"),
    ({OTHERS: [GUEST | {"kind": "steered"}]}, OTHERS + ".0.kind", "the name is reserved, and training_method s"),
    ({OTHERS: [{"kind": "guest", "path": "e"}]}, OTHERS + ".0.name", "is missing (write it: What reports call it"),
    ({OTHERS: [GUEST | {"weight": 2}]}, OTHERS + ".0.weight", "known here: name, kind, generation"),
    ({OTHERS: [GUEST | {"name": "Elder"}]}, OTHERS + ".0.name", "expected text of the form"),
    ({OTHERS: [GUEST | {"name": "teacher2"}]}, OTHERS + ".0.name", "found 'teacher2', which means another"),
    ({OTHERS: [GUEST, GUEST | {"path": "data"}]}, OTHERS + ".0.name", "found 'elder' 2 times"),
    ({OTHERS: [{"name": "elder", "kind": "guest"}]}, OTHERS + ".0.path", "of kind guest needs a Hugging Face folder"),
    ({OTHERS: [GUEST | {"files": ["a"]}]}, OTHERS + ".0.files", "is not for kind guest, which needs path"),
    ({OTHERS: [{"name": "old", "kind": "generation"}]}, OTHERS + ".0.generation", "needs the name of an ancestor"),
    ({OTHERS: [{"name": "o", "kind": "generation", "generation": "x"}]}, OTHERS + ".0.generation", "no generation n"),
    (
        {OTHERS: [{"name": "old", "kind": "generation", "generation": "Luna-G010"}]},
        OTHERS + ".0.generation",
        "found Luna-G010, expected an ancestor of Luna-G010",
    ),
    (
        {OTHERS: [{"name": "old", "kind": "generation", "generation": "Sol-G001"}]},
        OTHERS + ".0.generation",
        "found Sol-G001, expected an ancestor of Luna-G010",
    ),
    (
        {
            OTHERS: [{"name": "library", "kind": "retrieval", "files": ["a"]}],
            "training_params": {"granularity": "sequence", "routing": "agreement"},
        },
        OTHERS + ".0.kind",
        "write training_params.granularity: token",
    ),
    ({OTHERS: [GUEST | {"options": {"depth": 1}}]}, OTHERS + ".0.options.depth", "unknown key"),
    ({**FINE_TUNING, OTHERS: [GUEST]}, OTHERS, "supervised_fine_tuning has no teachers' target"),
    (TAUGHT, OTHERS, "distilled_pretraining has no parent, so another teacher must teach it"),
    ({**TAUGHT, OTHERS: [GUEST]}, "student.architecture.tokenizer", "write the folder of elder: 'elder'"),
    (
        {**TAUGHT, OTHERS: [GUEST], "student.architecture": {"tokenizer": "elder", "vocab_size": 300}},
        "student.architecture.vocab_size",
        "which has a size of its own",
    ),
    ({OTHERS: [GUEST | {"files": ["a"]}]}, OTHERS + ".0.files", "a row write teachers.others.0.retrieval"),
    ({OTHERS: [GUEST | LOOKS_UP]}, OTHERS + ".0.retrieval", 'write teachers.others.0.context: "{context}\\n"'),
    ({OTHERS: [COUNTS | LOOKS_UP]}, OTHERS + ".0.retrieval", "of kind counts is no model that could read them"),
    ({OTHERS: [GUEST | {"path": " "}]}, OTHERS + ".0.path", "found an empty path"),
    ({"runtime.devices": {"others": "gpu"}}, "runtime.devices.others", "expected text of the form"),
    # objective, batches, stabilizers
    ({**FINE_TUNING, "training_params.recipe": "surprise_kd"}, "training_params.recipe", "leave it out"),
    ({**FINE_TUNING, "training_params.routing": "agreement"}, "training_params.routing", "leave it out"),
    ({**FINE_TUNING, "training_params.granularity": "sequence"}, "training_params.granularity", "leave it out"),
    ({"training_params.alpha": 0, "training_params.beta": 0}, "training_params.alpha", "alpha and beta are both 0"),
    ({"training_params.granularity": "sequence"}, "training_params.granularity", "write routing: agreement"),
    ({"training_params.accumulation": 3}, "training_params.batch_size", "write batch_size 18"),
    ({"training_params.accumulation": 32}, "training_params.batch_size", "write batch_size 32"),
    (
        {"data.packing": True, "data.group_by_length": True},
        "data.group_by_length",
        "packs rows of mixed lengths better",
    ),
    ({"stabilizers.token_masking": True}, "stabilizers.token_masking", "list stabilizers.taboo_words"),
    ({"stabilizers.taboo_words": ["synergy"]}, "stabilizers.taboo_words", "token_masking: true"),
    ({"stabilizers.taboo_token_ids": [3]}, "stabilizers.taboo_token_ids", "token_masking: true"),
    ({"stabilizers.token_masking": True, "stabilizers.taboo_words": [" "]}, "stabilizers.taboo_words.0", "no word"),
    ({**PRETRAINING, DREAMS: True}, "stabilizers.dreams", "leave dreams out"),
    ({REQUEST + "grandparent_gen": GONE, DREAMS: {"teacher": "both"}}, DREAMS + ".teacher", "write teacher1"),
    ({DREAMS: {"min_new_tokens": 49}}, DREAMS + ".min_new_tokens", "at most max_new_tokens 48"),
    ({DREAMS: True, "training_params.shares": {"dreams": 0}}, "training_params.shares.dreams", "share above 0"),
    # what the student writes
    ({PARAMS + "written": {}}, PARAMS + "written", "by recipe surprise_kd the student writes nothing"),
    ({**FINE_TUNING, PARAMS + "written": {}}, PARAMS + "written", "by supervised_fine_tuning the student"),
    ({**ON_POLICY, PARAMS + "shares": {"written": 0}}, PARAMS + "shares.written", "or recipe: surprise_kd"),
    ({**ON_POLICY, PARAMS + "steps": 3, PARAMS + "written": {"rounds": 4}}, PARAMS + "written.rounds", "at most 3"),
    (
        {**ON_POLICY, PARAMS + "written": {"demonstration": "{prompt}"}},
        PARAMS + "written.demonstration",
        "write recipe: self_distillation",
    ),
    (
        {PARAMS + "recipe": "self_distillation", PARAMS + "written": {"demonstration": "{answer}"}},
        PARAMS + "written.demonstration",
        "found {answer}, expected any of {prompt}",
    ),
    ({**TAUGHT, OTHERS: [GUEST], **ON_POLICY}, PARAMS + "recipe", "without a parent_gen that scores"),
    (
        {"stabilizers.replay_buffer": True, "training_params.shares": {"replay": 0}},
        "training_params.shares.replay",
        "stabilizers.replay_buffer: false",
    ),
    ({**PRETRAINING, "student.architecture": {"hidden": 100}}, "student.architecture.hidden", "a multiple of 8"),
    ({**PRETRAINING, "student.architecture": {"kv_heads": 3}}, "student.architecture.kv_heads", "divisor of heads 4"),
    ({**PRETRAINING, "data.max_length": 1024}, "data.max_length", "max_positions 512"),
    ({"student.adapter": {"kind": "dosa"}}, "student.adapter.kind", "'dora'"),
    ({"student.adapter": {"kind": "osf", "r": 8}}, "student.adapter.r", "unfreeze_rank_ratio says how much learns"),
    (
        {"student.adapter": {"unfreeze_rank_ratio": 0.3}},
        "student.adapter.unfreeze_rank_ratio",
        "kind lora",
    ),
    ({"student.adapter": {"kind": "osf", "unfreeze_rank_ratio": 1}}, "student.adapter.unfreeze_rank_ratio", "0.99"),
    (
        {"student.adapter": {"kind": "osf", "base": "nf4"}},
        "student.adapter.base",
        "singular values of a quant",
    ),
    ({"student.adapter": {"kind": "dora", "base": "nf4"}}, "student.adapter.base", "write full, or kind: lora"),
    ({"student.adapter": {"kind": "dora"}, "student.dtype": "bfloat16"}, "student.dtype", "lengths of the rows"),
    (
        {"student.adapter": {"kind": "osf"}, "runtime.student": {"ranks": 2, "sharding": "fsdp"}},
        "runtime.student.sharding",
        "cannot be projected",
    ),
    ({"student.adapter": {"target_modules": []}}, "student.adapter.target_modules", "all-linear"),
    ({"teachers.teacher1": {"context": "{answer}"}}, "teachers.teacher1.context", "found {answer}, expected any of"),
    ({"teachers.teacher1": {"context": "{text.real}"}}, "teachers.teacher1.context", "found {text.real}"),
    ({"teachers.teacher1": {"context": "{text!r:>9}"}}, "teachers.teacher1.context", "found {text!r:>9}"),
    ({"teachers.teacher2": {"context": "{"}}, "teachers.teacher2.context", "write a brace that is meant as one twice"),
    ({**FINE_TUNING, "teachers.teacher1": {"context": "a"}}, "teachers.teacher1.context", "no teacher reads rows"),
    # what teachers look up, and what they weigh
    ({T1: LOOKS_UP}, T1 + ".retrieval", 'write teachers.teacher1.context: "{context}\\n"'),
    ({"teachers.teacher2": LOOKS_UP}, "teachers.teacher2.retrieval", 'write teachers.teacher2.context: "{context}\\n"'),
    ({T1: {**LOOKS_UP, "context": "{prompt} {{context}}"}}, T1 + ".retrieval", "put {context} into"),
    ({**FINE_TUNING, T1: LOOKS_UP}, T1 + ".retrieval", "no teacher reads rows in supervised_fine_tuning"),
    (
        {**FINE_TUNING, PARAMS + "fusion": "precision"},
        PARAMS + "fusion",
        "found 'precision', but supervised_fine_tuning",
    ),
    ({**PRETRAINING, PARAMS + "throttle": True}, PARAMS + "throttle", "found true, but pretraining has no teachers'"),
    ({PARAMS + "fusion_rho": 0.5}, PARAMS + "fusion_rho", "write fusion: precision"),
    ({PARAMS + "fusion": "mean", PARAMS + "fusion_floor": 0.1}, PARAMS + "fusion_floor", "fusion mean has no use for"),
    ({PARAMS + "fusion_decay": 0.5}, PARAMS + "fusion_decay", "write fusion: precision or throttle: true"),
    (
        {OTHERS: [COUNTS], PARAMS + "throttle": False, PARAMS + "fusion_decay": 0.5},
        PARAMS + "fusion_decay",
        "without a throttle measures nothing",
    ),
    ({PARAMS + "routing": "cascade", PARAMS + "fusion": "mean"}, PARAMS + "fusion", "nothing is blended"),
    # steering
    ({"steering": STEER}, "steering", "teacher_student_distillation steers nobody"),
    ({**STEERS, "steering": GONE}, "steering", "is missing: steering_distillation steers by it"),
    ({**STEERS, "steering": {"concepts": {"calm": 1}}}, "steering.vectors", "is missing: the folder of the direction"),
    ({**STEERS, "steering": {"vectors": "data"}}, "steering.concepts", "is missing: what is pushed"),
    ({**STEERS, "steering": STEER | {"vector": "v"}}, "steering.vector", "did you mean 'vectors'?"),
    ({**STEERS, "steering": STEER | {"way": "prompt"}, T1: {"context": "a"}}, "steering.vectors", "steers nobody"),
    ({**STEERS, "steering": {"way": "prompt"}}, T1 + ".context", "is missing: with way prompt"),
    ({**STEERS, T1: {"context": "a"}}, T1 + ".context", "reads its own dreams alone"),
    ({**STEERS, DREAMS: False}, DREAMS, "let it dream"),
    ({**STEERS, DREAMS: {"teacher": "teacher2"}}, DREAMS + ".teacher", "teacher 2 the same unsteered"),
    ({**STEERS, OTHERS: [GUEST]}, OTHERS, "asks the parent alone"),
    ({**STEERS, PARAMS + "recipe": "on_policy_kd"}, PARAMS + "recipe", "here its steered parent does"),
    (
        {**STEERS, "stabilizers.rehearsal": {"older_teachers": 1}},
        "stabilizers.rehearsal.older_teachers",
        "the steered parent alone dreams",
    ),
    ({**STEERS, REQUEST + "grandparent_gen": "Luna-G009"}, REQUEST + "grandparent_gen", "is the unsteered parent"),
    ({**STEERS, "steering": STEER | {"barrier": {"aggregate": "max"}}}, "steering.barrier.aggregate", "'rms'"),
    ({"gates.coherence": {"min_ratio": 0.0}}, "gates.coherence", "against nothing"),
    # laws of request and training
    ({"laws.on_broken": "halt"}, "laws.on_broken", "write laws.training"),
    ({"laws.training": {"max_kl": 1, "window": 1200}}, "laws.training.window", "training_params.steps is 1200"),
    ({"laws.training": {"max_loss_spike": 1}}, "laws.training.max_loss_spike", "expected more than 1"),
    ({"laws.training": {"sample_every": 9}}, "laws.training.sample_every", "nothing reads the texts"),
    (
        {"laws": {"training": {"sample_every": 9}, "sampled_answers": 0, "forbidden_text": ["x"]}},
        "laws.training.sample_every",
        "so no text is written",
    ),
    (
        {"laws": {"training": {"sample_every": 9999}, "forbidden_text": ["x"]}},
        "laws.training.sample_every",
        "but only 1200 steps",
    ),
    ({"laws.approvals": -1}, "laws.approvals", "expected at least 0"),
    # data, gates, laws, budget
    ({"data.probes": " "}, "data.probes", "found an empty path"),
    ({"data.today": "2026-02-30"}, "data.today", "is no day"),
    ({"data.train_turns": "first"}, "data.train_turns", "'last'"),
    ({"data.control_tokens": "special"}, "data.control_tokens", "'parse'"),
    ({"laws.allowed_sources": [""]}, "laws.allowed_sources.0", "found an empty path"),
    ({"data.train": ["data/train.jsonl"] * 2}, "data.train", "name each file once"),
    ({TONE + "reference": "None"}, TONE + "reference", "write none"),
    ({TONE + "prompts": "data/prompts.txt"}, TONE + "prompts", "name a reference file"),
    ({TONE + "reference": "Parent"}, TONE + "reference", "write parent"),
    ({**PRETRAINING, TONE + "reference": "parent"}, TONE + "reference", "nobody has a voice to keep"),
    ({TONE + "reference": "parent", TONE + "measure": "readout"}, TONE + "readout", "`ladder concepts fit` wrote"),
    ({TONE + "measure": "readout", TONE + "readout": {"vectors": "v"}}, TONE + "reference", "write parent"),
    ({TONE + "reference": "parent", TONE + "readout": {"vectors": "v"}}, TONE + "readout", "write measure: readout"),
    ({**PRETRAINING, "laws.max_push": {"vectors": "v"}}, "laws.max_push", "a genesis has nobody to be pushed"),
    ({TONE + "reference": "parent", TONE + "measure": "embedding"}, TONE + "encoder", "name the local folder"),
    ({TONE + "reference": "parent", TONE + "encoder": "models"}, TONE + "encoder", "write measure: embedding"),
    ({TONE + "measure": "embedding", TONE + "encoder": "models"}, TONE + "encoder", "leave encoder out"),
    ({"gates.decoding": {"stop": [""]}}, "gates.decoding.stop.0", "every answer would be empty"),
    ({LAW: ["a", "(b"]}, LAW + ".1", "is no regular expression"),
    ({LAW: ["a*"]}, LAW + ".0", "every answer would break this law"),
    ({"laws.required_text": [{"pattern": "a*"}]}, "laws.required_text.0.pattern", "nothing could break this law"),
    ({"laws.required_text": [{"pattern": "("}]}, "laws.required_text.0.pattern", "is no regular expression"),
    ({"laws.required_text": [{"pattern": "a", "chat": True}]}, "laws.required_text.0.chat", "name prompts"),
    ({"laws.required_text": [{"pattern": "a", "promts": "p"}]}, "laws.required_text.0.promts", "unknown key"),
    ({"laws.refusals": {"prompts": "p", "pattern": "()"}}, "laws.refusals.pattern", "count as a refusal"),
    ({**PRETRAINING, "laws.max_ece_rise": 0.0}, "laws.max_ece_rise", "leave max_ece_rise out"),
    ({**PRETRAINING, "laws.max_entropy_drop": 1}, "laws.max_entropy_drop", "leave max_entropy_drop out"),
    ({"laws.max_self_bleu": 0.9, "laws.sampled_answers": 1}, "laws.max_self_bleu", "sample two texts or more"),
    ({"laws.canaries": ""}, "laws.canaries", "found an empty path"),
    ({"budget.max_steps": 1199}, "budget.max_steps", "training_params.steps asks for 1200"),
]


@pytest.mark.parametrize(("changes", "field", "fragment"), BROKEN, ids=[row[1] + ": " + row[2][:20] for row in BROKEN])
def test_a_broken_manifest_names_field_and_remedy(write, change, changes, field, fragment):
    path = write(change(changes))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert caught.value.where == f"{path}: {field}"
    assert fragment in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("changes", "field", "fragment"), BROKEN, ids=[row[1] + ": " + row[2][:20] for row in BROKEN])
def test_plan_and_evolve_refuse_it_and_leave_no_trace(write, change, capsys, monkeypatch, changes, field, fragment):
    from ladder.cli import main

    path = write(change(changes))
    home, ended = path.parent / "home", []
    for verb in ("plan", "evolve"):
        monkeypatch.setattr("sys.argv", ["ladder", verb, str(path), "--home", str(home)])
        ended.append((main(), capsys.readouterr()))
    (code, said), again = ended
    assert again == (code, said) and code == 2
    assert f"{field}: " in said.err and fragment in said.err
    assert not home.exists() and said.out == ""


def test_the_manifest_that_all_of_them_spoil_is_valid(write, change):
    assert read_request(write(change({}))).child.index == 11


SOUND: list[dict[str, Any]] = [
    {T1: {**LOOKS_UP, "context": "Read: {context}\n{prompt}"}, OTHERS: [GUEST | LOOKS_UP | {"context": "{context}\n"}]},
    {**FINE_TUNING, PARAMS + "throttle": False, PARAMS + "fusion": "confidence", PARAMS + "fusion_rho": 1.0},
    {PARAMS + "fusion": "precision", PARAMS + "fusion_rho": 0.5, PARAMS + "fusion_decay": 0.5},
    {PARAMS + "throttle": True, PARAMS + "fusion_decay": 0.5},
    {OTHERS: [COUNTS], PARAMS + "fusion_decay": 0.5},
    {PARAMS + "routing": "cascade", PARAMS + "fusion": "precision", PARAMS + "throttle": True},
]


@pytest.mark.parametrize("changes", SOUND, ids=[" ".join(row) for row in SOUND])
def test_what_teachers_read_and_weigh_is_taken_where_it_does_something(write, change, changes):
    load_manifest(write(change(changes)))


def test_several_problems_are_listed_in_one_error(write, change):
    path = write(change({"training_params": {"alfa": 1, "steps": "many"}, "gates.tone.max_drift": 2.0}))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    first, second, third = str(caught.value).splitlines()
    assert first.startswith(f"{path}: training_params.steps: found 'many'")
    assert second.startswith("  also training_params.alfa: unknown key")
    assert third.startswith("  also gates.tone.max_drift: found 2.0, expected at most 1")
    assert "3 problems in all" in third


def test_what_stands_in_a_union_is_told_once(write, change):
    path = write(change({DREAMS: {"cuont": 3}, "student.adapter": {"target_modules": [3]}}))
    with pytest.raises(ManifestError, match="2 problems in all") as caught:
        load_manifest(path)
    assert len(str(caught.value).splitlines()) == 2


def test_a_flood_of_problems_is_cut(write, change):
    with pytest.raises(ManifestError, match="and 80 more") as caught:
        load_manifest(write(change({f"training_params.x{number}": 1 for number in range(100)})))
    assert len(str(caught.value).splitlines()) == 21
