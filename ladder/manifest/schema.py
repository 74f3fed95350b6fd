"""What an evolution manifest may say. Pydantic only: nothing here imports torch, Ray or MLflow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ladder.manifest.installed import FAMILIES, METHODS, OPTIMIZERS, TEACHERS, Named
from ladder.manifest.schema_runtime import Runtime
from ladder.manifest.schema_steering import Steer
from ladder.manifest.section import Count, NonNegative, Positive, Probability, Section, Seed
from ladder.manifest.sources import RowKey
from ladder.manifest.words import modern_section


class RequiredText(Section):
    """What answers must hold."""

    pattern: str
    """Regular expression that is found in each of them."""
    prompts: str | None = None
    """Text file with one prompt a line (or an object with ``prompt`` or ``messages``, and ``system``), answered for
    this law. When left out, all answers to probes and tone prompts count."""
    chat: bool = False
    """The prompts are a user's turns, rendered by the chat template."""


class Refusals(Section):
    """What the child must go on refusing: prompts that its parent refuses, and all of them for a genesis."""

    prompts: str
    """Text file with one prompt a line (or an object with ``prompt`` or ``messages``, and ``system``)."""
    pattern: str
    """Regular expression that is found in an answer that refuses."""
    chat: bool = False
    """The prompts are a user's turns, rendered by the chat template."""


class Push(Section):
    """How far rows may push what the parent reads inside, before a child has learned anything from them."""

    vectors: str
    """Folder of directions, as ``ladder concepts fit`` writes it: of the parent or an ancestor of it."""
    layers: list[Annotated[int, Field(ge=0)]] | None = None
    """Behind which layers is read; all that the folder has when left out. Their readings are averaged."""
    limit: Positive | None = 0.5
    """How far the answers of rows may lie from the parent's own answers to the same prompts, concept by concept, up or
    down: on average over rows, in standard deviations of the parent's readings. With null only ``limits`` hold."""
    limits: dict[str, Positive] = {}
    """Limits of concepts by name, in place of ``limit``."""
    rows: Count = 200
    """New rows that are read, and dreams, evenly from the first to the last. The parent answers each of them."""


class TrainingLaws(Section):
    """What must not happen while training runs, judged at each step that moved the student. Nor may a figure be NaN."""

    max_loss_spike: Annotated[float, Field(gt=1.0)] | None = None
    """A step's loss over the median loss of the ``window`` steps before it."""
    max_grad_norm_spike: Annotated[float, Field(gt=1.0)] | None = None
    """The same of the gradient's norm before clipping."""
    max_kl: Positive | None = None
    """Mean divergence from the teachers' target over ``window`` steps, in nats: of the tokens that a teacher teaches,
    in the objective's ``direction`` and at its ``temperature``. Needs a teacher or dreams."""
    min_entropy: Positive | None = None
    """Mean entropy of the student's predictions over ``window`` steps, in nats, read from at most 64 tokens of each
    micro-batch."""
    window: Count = 20
    """Steps that the laws above look back."""
    sample_every: Count | None = None
    """Every so many steps the student writes up to 16 of the ``sampled_answers``, and ``forbidden_text``, taboo words
    and ``canaries`` are looked for in them. A checkpoint is written at these steps, too."""


class Laws(Section):
    """What must never happen. One violation rejects the child."""

    allowed_sources: Annotated[list[str], Field(min_length=1)] = ["."]
    """Folders that data may come from, resolved through symbolic links."""
    forbidden_text: list[str] = []
    """Regular expressions that no answer and no sampled text may contain."""
    required_text: list[RequiredText] = []
    """What answers must hold."""
    refusals: Refusals | None = None
    """What the child must go on refusing."""
    canaries: str | None = None
    """Text file with one text a line, all of them planted in the training rows, that may come out of the child nowhere;
    nor may it finish one whose first half it is given."""
    max_ece_rise: Probability | None = None
    """By how much the expected calibration error of the child's answers may exceed the parent's."""
    max_entropy_drop: NonNegative | None = None
    """By how many nats the entropy over the exam's prompts may fall below the parent's."""
    max_self_bleu: Probability | None = None
    """How alike the sampled texts may be: the mean BLEU-4 of each with the others as references."""
    max_push: Push | None = None
    """How far new rows and dreams may push concepts that the parent reads inside."""
    custom: list[str] = []
    """Names of installed laws: entry points of the group ``ladder.laws``."""
    sampled_answers: Annotated[int, Field(ge=0)] = 64
    """Texts sampled at temperature 1 and checked besides the greedy answers of the exam."""
    sampled_tokens: Count = 48
    """Length of those texts."""
    training: TrainingLaws | None = None
    """What must not happen while training runs."""
    on_broken: Literal["reject", "halt"] = "reject"
    """What a law of ``training`` does that is broken: ``reject`` the child once it has been examined, or ``halt`` the
    run at that step, with nothing recorded."""
    cooldown_hours: Positive | None = None
    """No child is trained within so many hours of the family's last promotion."""
    approvals: Annotated[int, Field(ge=0)] = 0
    """Different keys that ``ladder promote REF --key NAME`` needs before a child that passed becomes HEAD."""


class Budget(Section):
    """What the step may cost. Known costs are refused before training, wall time is checked while it runs."""

    max_steps: Count | None = None
    """Steps of the optimiser; a manifest that asks for more is refused."""
    max_tokens: Count | None = None
    """Tokens through the student's backbone, over all steps (upper bound: steps x batch_size x max_length)."""
    max_minutes: Positive | None = None
    """Minutes of training, over all calls. A run that this stops goes on under a larger budget."""
    max_memory_gib: Positive | None = None
    """GiB of resident memory, the peaks of all processes added up. Judged from the plan's price before training, and
    from what was measured after it; so is ``max_disk_gib``."""
    max_disk_gib: Positive | None = None
    """GiB that the home grows by; after training, the run's folder and the signals that were stored."""


Evidence = Literal["point", "interval"]
"""What decides a gate: the figures as they are, or also the lower bound of the difference to the parent, which is what
other probes of the same kind would show at least (``docs/gates.md`` has how often each is wrong)."""


class RecallGate(Section):
    """No forgetting: mean over the ancestors of the accuracy on the probes that each left."""

    evidence: Evidence = "point"
    """With ``interval`` a drop beyond ``max_drop`` must be ruled out, for which some hundred probes are needed."""

    max_drop: Probability = 0.05
    """The child may lie this far below its parent, and on no ancestor's probes plainly farther."""
    max_slide: Probability = 0.25
    """It may lie this far below what an ancestor itself answered of its own probes: small drops add up."""
    minimum: Probability = 0.0
    """And never lie below this; 0 asks for nothing, because the parent is the yardstick."""


class GeneralizeGate(Section):
    """Really better: accuracy on this child's held-out probes."""

    evidence: Evidence = "interval"
    """With ``interval`` the gain must be beyond chance, unless ``ceiling`` is reached."""

    min_gain: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.02
    """The child must beat its parent by this much, or reach ``ceiling``."""
    ceiling: Probability = 0.98
    """Accuracy that is enough whatever the gain: beyond it there is hardly room for one."""
    minimum: Probability = 0.0
    """And never lie below this."""


class Readout(Section):
    """What moved inside a model: how far a child's readings along directions of concepts lie from its parent's."""

    vectors: str
    """Folder of the directions, as ``ladder concepts fit`` writes it: of the parent or an ancestor of it. Its two files
    are kept with the child."""
    layers: list[Annotated[int, Field(ge=0)]] | None = None
    """Behind which layers is read; all that the folder has when left out. Their readings are averaged."""
    position: Literal["answer", "prompt"] = "answer"
    """Which tokens are read: those of the model's own answer, on average, or the last one of the prompt, which needs no
    answer and says less of a trait."""
    max_shift: Positive | None = 0.5
    """How far each concept may move, up or down, in standard deviations of the parent's readings over the prompts. With
    null the concepts that ``limits`` does not name are told and not judged."""
    limits: dict[str, Positive] = {}
    """Limits of concepts by name, in place of ``max_shift``."""


class ToneGate(Section):
    """Same voice: drift of the child's answers from a reference."""

    reference: str = "none"
    """``none`` before the voice age, a text file in the family's voice, one utterance a line, or ``parent``: what the
    parent answers to the same prompts."""
    measure: Literal["stylometric", "embedding", "readout"] = "stylometric"
    """What is compared: words, characters and sentence shape, without a model; the sentence embeddings of ``encoder``;
    or what the two models read in themselves, by ``readout``."""
    encoder: str | None = None
    """Hugging Face folder of the sentence encoder that ``measure: embedding`` reads with, such as MiniLM."""
    readout: Readout | None = None
    """Directions and limits of ``measure: readout``, which needs them and ``reference: parent``."""
    prompts: str | None = None
    """Text file with one prompt a line (or an object with ``prompt`` or ``messages``, ``system`` and ``chat``),
    answered for this gate; the held-out probes' prompts when left out."""
    max_drift: Probability = 0.05
    """Between 0 (the same voice) and 1, less what samples of one voice differ by: mean Jensen-Shannon divergence of the
    three style profiles in bits, or for ``embedding`` the coefficient of inhomogeneity (see ``docs/gates.md``)."""


class CalibrationGate(Section):
    """Knows what it knows: expected calibration error of the answers to written probes, ten bins of confidence."""

    evidence: Evidence = "point"
    """With ``interval`` a rise beyond ``max_rise`` must be ruled out, for which some hundred probes are needed."""

    max_rise: Probability = 0.05
    """The child's error may lie this far above its parent's."""
    maximum: Probability = 1.0
    """And never above this."""


class CoherenceGate(Section):
    """Still answers: of forced choices (probes of kind ``choice``), the probability of all options together."""

    minimum: Probability = 0.0
    """The mean may not lie below this."""
    min_ratio: Probability = 0.95
    """Nor below this share of the parent's. A model that was steered too far says none of the options."""


class Decoding(Section):
    """Greedy decoding of answers in the exam."""

    max_new_tokens: Count = 32
    """Longest answer in tokens."""
    batch_size: Count = 64
    """Prompts that are answered at a time; it costs memory and changes no answer but by rounding."""
    stop: list[str] | None = None
    """An answer ends before the first of these strings, or at the end-of-text token. When left out, the answer to a raw
    prompt ends at a newline, and to a chat prompt where the chat template ends a turn."""


class LmEval(Section):
    """A task of lm-evaluation-harness, which must be installed (``pip install 'generation-ladder[suites]'``)."""

    task: Annotated[str, Field(min_length=1)]
    """Name of a task or group."""
    metric: Annotated[str, Field(min_length=1)]
    """Name of a metric such as ``acc``; with its filter (``exact_match,strict-match``) where there are several."""
    include_path: str | None = None
    """Folder of the task's YAML files and their data; the task is looked for there alone. Relative ``data_files`` start
    there. When left out, the tasks that the harness brings are meant."""
    limit: Count | None = None
    """Documents that are asked; all of them when left out."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Examples before each document; the task's own number when left out."""
    batch_size: Count = 8
    """Documents that are read at a time."""


class MetricGate(Section):
    """A gate of its own, in the words of ``mlflow.models.MetricThreshold``. Every threshold written must hold."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
    """What the gate is called in reports."""
    source: LmEval
    """What measures it, of the child and of its parent."""
    greater_is_better: bool
    """Which way the metric is better."""
    threshold: float | None = None
    """The child's figure must be at least this, or at most where less is better."""
    min_absolute_change: float | None = None
    """By how much it must be better than the parent's, in the metric's unit; below 0 it may be worse by that much."""
    min_relative_change: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """The same as a share of the parent's figure. Above 0 and beside a parent's 0, any gain is enough."""


GATES = ("recall", "generalize", "tone", "laws")
"""The four gates that every child is held to, in their order."""


class Gates(Section):
    """Thresholds of the four gates, and further ones. All must pass; a gate that cannot be examined fails."""

    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    """Of each bound of a difference between child and parent."""
    recall: RecallGate = RecallGate()
    generalize: GeneralizeGate = GeneralizeGate()
    tone: ToneGate = ToneGate()
    calibration: CalibrationGate | None = None
    """A gate on calibration, after the four; none when left out."""
    coherence: CoherenceGate | None = None
    """A gate on whether the child still answers forced choices, after that; none when left out."""
    decoding: Decoding = Decoding()
    metrics: list[MetricGate] = []
    """Gates on what other people's suites measure, after the four."""
    custom: list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]] = []
    """Names of installed gates: entry points of the group ``ladder.gates``, after those of ``metrics``."""


Method = Annotated[str, Named(METHODS)]
Recipe = Literal["surprise_kd", "logit_blending_kd", "on_policy_kd", "self_distillation"]
Direction = Literal["forward", "reverse", "jsd"]
RoutingTable = Literal["agreement", "surprise", "cascade"]
ControlTokens = Literal["text", "parse"]
AdapterKind = Literal["lora", "dora", "osf"]
"""What control tokens are that stand in a text: plain characters, or themselves."""


class EvolutionRequest(Section):
    """Who comes from whom, and by which method."""

    child_gen: str
    """Name of the generation to train: ``{family}-G{NNN}``."""
    training_method: Method
    """How the child is trained: one of ladder's own methods, or of an installed package's."""
    parent_gen: str | None = None
    """Generation N: the student starts from it and it is teacher 1. Absent only for a genesis."""
    grandparent_gen: str | None = None
    """Generation N-1, teacher 2: an ancestor of the parent. Optional; without it one teacher teaches."""
    branch: bool = False
    """Start from a promoted parent that is not HEAD. A branch never becomes HEAD by itself."""
    note: str = ""
    """Why this child exists, in a sentence; it is stored with the generation."""


class Evidences(Section):
    """Documents of which the best hits are read before a row, by BM25."""

    files: Annotated[list[str], Field(min_length=1)]
    """Text files, one document a paragraph, or JSONL rows as ``data.train`` has them."""
    hits: Count = 1
    """Documents that are read before a row."""


class Teacher(Section):
    """One frozen teacher."""

    gen: Annotated[int, Field(ge=0)] | None = None
    """Index of the generation; must agree with ``evolution_request``."""
    role: Literal["primary", "stabilizing_critic"] | None = None
    """``primary`` for teacher 1, ``stabilizing_critic`` for teacher 2."""
    path: str | None = None
    """Folder that holds this generation. It must equal the registered one, or is imported first if the name is new."""
    context: Annotated[str, Field(min_length=1)] | None = None
    """What this teacher reads before each new row, and the student never: a text in which ``{prompt}``,
    ``{completion}`` and ``{text}`` stand for the row's own words (a demonstration), and ``{context}`` for the field
    ``context`` of the row (retrieved evidence). For models that can use what they read."""
    retrieval: Evidences | None = None
    """Where ``{context}`` comes from, for rows that bring none of their own."""


class OtherTeacher(Section):
    """A frozen teacher besides the two: anything that says something about a token. It never dreams, and is no part of
    the lineage."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
    """What reports call it."""
    kind: Annotated[str, Named(TEACHERS)]
    """``generation`` (an ancestor), ``guest`` (a model of others with the same tokenizer), ``counts`` (of a corpus),
    ``retrieval`` (documents that vote), or that of an installed package."""
    generation: str | None = None
    """Name of the ancestor, for ``kind: generation``."""
    path: str | None = None
    """Hugging Face folder, for ``kind: guest``."""
    files: list[str] = []
    """Text or JSONL files: the corpus of ``counts``, the documents of ``retrieval``."""
    context: Annotated[str, Field(min_length=1)] | None = None
    """As ``teachers.teacher1.context``, for teachers that are models."""
    retrieval: Evidences | None = None
    """As ``teachers.teacher1.retrieval``, for teachers that are models."""
    options: dict[str, Any] = {}
    """Whatever else the kind has to be told; ``docs/teachers.md`` lists it."""


class Teachers(Section):
    """The frozen teachers. The names of the first two come from ``evolution_request``."""

    teacher1: Teacher = Teacher()
    teacher2: Teacher | None = None
    others: list[OtherTeacher] = []
    """Further ones, teacher 3 and on, in this order."""


class Architecture(Section):
    """A small model to be initialised at random (pretraining only). Sizes are counts, not bytes."""

    family: Annotated[str, Named(FAMILIES)] = "llama"
    """Which architecture it is: one of ladder's own, or of an installed package's."""
    layers: Count = 4
    """Transformer blocks. The defaults are a model of a million weights, which two cores train in minutes."""
    hidden: Count = 128
    """Width of the hidden state; an even multiple of ``heads``."""
    heads: Count = 4
    """Attention heads of each block."""
    kv_heads: Count | None = None
    """Key and value heads; ``heads`` when left out."""
    intermediate: Count | None = None
    """Width of the feed-forward layer; when left out, what the family usually has (``llama`` and ``qwen3``: 4 x hidden
    x 2/3, rounded up to 32; ``gpt2``: 4 x hidden)."""
    vocab_size: Annotated[int, Field(ge=260)] = 1024
    """Size of the byte-level BPE vocabulary that is trained on ``data.train``."""
    tokenizer: str | None = None
    """Hugging Face folder whose tokenizer the family takes instead of training one; a ``guest`` that teaches must have
    the same."""
    max_positions: Count = 512
    """Longest text in tokens that it can read."""
    tie_embeddings: bool = True
    """Use the embeddings as the output head, too: that spares ``vocab_size`` x ``hidden`` weights, much of a small
    model."""


class Adapter(Section):
    """Train an adapter (peft) instead of all weights. The merged weights are what is gated and registered."""

    kind: AdapterKind = "lora"
    """How the weights may move. ``lora`` adds a product of rank r to each matrix. ``dora`` learns the length of each
    row of the sum as well (arXiv:2402.09353). ``osf`` takes each matrix apart by its singular values, keeps the
    strongest directions as they are and trains the weakest (arXiv:2504.07097): at peft's share that costs more than
    training all weights. The last two want float32 and a base that is not quantised. LoRA is the default, because it is
    the cheapest, and teachers that are adapters themselves can share its base."""
    r: Count = 16
    """Rank of the adapters; not of ``osf``."""
    alpha: Count = 32
    """What an adapter adds counts alpha / r times; twice the rank is the usual choice. Not of ``osf``."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of an adapter's inputs that is dropped while it trains; not of ``osf``."""
    unfreeze_rank_ratio: Annotated[float, Field(ge=0.01, le=0.99)] = 0.5
    """Of ``osf``: share of each matrix' singular directions that learn, the weakest ones. Half is peft's default."""
    base: Literal["full", "nf4"] = "full"
    """Keep the frozen base in the student's dtype, or in 4 bits while it trains (QLoRA; needs a CUDA GPU and
    bitsandbytes). The adapter is merged into the full weights either way."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Linear layers that get an adapter: all but the output head, or those named. Of the output head LoRA alone can be
    one."""


class Student(Section):
    """What the child starts as. With a parent it always starts as a copy of the parent."""

    model: str | None = None
    """A Hugging Face folder to start from, where there is no parent."""
    architecture: Architecture | None = None
    """A model from scratch, where there is neither parent nor ``model``. Pretraining only."""
    adapter: Adapter | None = None
    """LoRA, DoRA or OSF through peft; all weights are trained when left out."""
    variance_head: bool = False
    """Let the student say a variance of each dimension of its hidden state, and learn from labels the temperature that
    follows (``training_params.temperature: variance``). It moves nothing else, and the child is stored without it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of student and teachers. bfloat16 is very slow on a CPU without bf16 units."""
    save_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """What the child's weights are stored in, rounded before its exam; when left out, what those are stored in that it
    starts as."""


class Data(Section):
    """The rows to learn from and the probes to be examined on."""

    train: Annotated[list[str], Field(min_length=1)]
    """JSONL files of ``{"text"}``, ``{"prompt"}``, ``{"prompt", "completion"}`` or ``{"messages"}`` rows; or CSV, TSV,
    a JSON list, Parquet, Arrow, a folder of ``Dataset.save_to_disk`` or ``hf://OWNER/NAME@COMMIT:SPLIT``; also with a
    ``system`` column, as instruction/input/output or as ShareGPT's conversations. A row's ``weight`` says how much it
    counts in the loss."""
    columns: dict[RowKey, str] = {}
    """Which column of these files is what, such as ``{"prompt": "question", "completion": "answer"}``; other columns
    are then left out. When left out itself, columns are what they are called. Also for ``replay_from``."""
    probes: str | None = None
    """JSONL file of held-out ``{"prompt", "answer"}`` probes, with ``system`` or ``messages`` as in a conversation; the
    child leaves them behind for its descendants."""
    max_length: Annotated[int, Field(ge=8)] = 512
    """Longest row in tokens; longer ones are cut and counted."""
    truncation_side: Literal["left", "right"] = "right"
    """Which end of a row that is too long is dropped."""
    packing: bool = False
    """Put several rows into one sequence, with attention and positions kept apart."""
    group_by_length: bool = False
    """Give a step rows of similar length, so that less is padded; without packing only, which pads less still."""
    replay_from: list[str] = []
    """JSONL files of rows in which those are found that ancestors left as digests (``stabilizers.replay: hashed``). A
    row that stands in none of them any more is not replayed."""
    chat_template: str | None = None
    """Jinja file that replaces the tokenizer's chat template from this generation on."""
    train_turns: Literal["all", "last"] = "all"
    """Which of the assistant's turns in a conversation are learned."""
    control_tokens: ControlTokens = "text"
    """What the tokenizer's control tokens are where they are written in rows and raw prompts: plain characters, or
    themselves (``parse``), for texts that went through a chat template before. In conversations the chat template alone
    writes them."""
    today: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    """The day that a chat template writes which asks for the date (YYYY-MM-DD). When left out, the parent's; where it
    has none, the day on which the run began."""
    tokenizer_text: list[str] = []
    """Files whose words the tokenizer of a family from scratch learns beside the new rows, and nobody else: text
    (``.txt``), line by line, or rows. So lessons that come later find their words known."""


class Shares(Section):
    """How each batch and the loss are divided among the sources; normalised over those that exist. The defaults are
    what kept most while the newest rows were still learned (``docs/evidence.md``)."""

    new: Positive = 0.6
    """Of this generation's own rows. With less the newest rows are learned worse: 0.91 with 0.5, 0.94 with 0.6."""
    replay: NonNegative = 0.1
    """Of the rows that ancestors left. 0.3 in place of new rows kept less."""
    dreams: NonNegative = 0.3
    """Of what teachers dreamt. With 0.2 more is forgotten, with 0.4 less is learned."""
    written: NonNegative = 0.3
    """Of what the student wrote itself, with the recipes that let it write. The default is that of dreams, whose place
    it takes there."""


class Written(Section):
    """What the student writes itself and its parent scores (recipes ``on_policy_kd`` and ``self_distillation``). The
    training goes in rounds: at the beginning of each the student writes with the weights that it has then."""

    rounds: Count = 4
    """How often it writes. More rounds are closer to what the student would write at each step, and each costs the
    writing and a checkpoint."""
    count: Count | None = None
    """Texts a round; when left out, one for each time that a step of the round reads one, at most 512."""
    temperature: Positive = 1.0
    """Of sampling. At 1 they are the student's own distribution, of which the divergence is an expectation."""
    max_new_tokens: Count = 48
    """Longest text in new tokens, as of a dream. What is not over by then is scored as far as it goes."""
    prompts: str = "auto"
    """Whose prompts it answers: ``new`` rows', ``replay`` (rows that ancestors left), ``both``, or those of a file, as
    ``stabilizers.dreams.prompts`` has them; beside them the new rows' with ``self_distillation``. ``auto`` is ``both``
    for ``self_distillation``; for ``on_policy_kd`` it is ``replay`` where rows are replayed, because the parent knows
    nothing of the new ones. Of a text it gets the first two tokens."""
    demonstration: Annotated[str, Field(min_length=1)] | None = None
    """With ``self_distillation`` what the parent reads before it scores what was written for a new row: a text as
    ``teachers.teacher1.context``. When left out, the row's prompt and completion, or its text, and an empty line."""


class Capacity(Section):
    """Watch the student's attention heads while it trains (``docs/capacity.md``). Changes nothing that is learned."""

    decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """How much of what was seen before a step still counts after it."""
    stabiliser: Positive = 1.5
    """A head is a stabiliser above this precision, and an explorer up to it."""


class Variance(Section):
    """A temperature for each token: T = clip(base (1 + slope m)^exponent, low, high), m the weighted variance of
    the teachers' log-probabilities, as a mean over the 40 likeliest tokens of their blend. One teacher has none."""

    base: Positive = 1.0
    """T where teachers do not differ."""
    slope: NonNegative = 1.0
    """How fast T rises with what they differ by; 0 is one T for all."""
    exponent: NonNegative = 1.0
    """1 makes T grow with the variance itself."""
    low: Positive = 0.7
    """T is at least this."""
    high: Positive = 1.8
    """T is at most this; with T 4 for all tokens half of the generations failed their exams (``docs/evidence.md``)."""
    head_scale: NonNegative = 0.1
    """Of the gradient by which ``student.variance_head`` learns."""


class TrainingParams(Section):
    """The objective L = alpha CE + beta KL + gamma R, and the optimiser."""

    recipe: Recipe | None = None
    """Recipe of a distillation: ``surprise_kd`` (default: surprise routing and dreams), ``logit_blending_kd``
    (agreement routing, no dreams), ``on_policy_kd`` (surprise routing; in place of dreams the student writes and its
    parent scores, by the reverse divergence) or ``self_distillation`` (the same, and the parent has read the row's
    answer). A field that is written out wins over its recipe. Once called ``method``."""
    alpha: NonNegative = 0.1
    """Weight of cross-entropy on gold labels. With 0 and with 0.5 a little less was kept (``docs/evidence.md``)."""
    beta: NonNegative = 0.9
    """Weight of the divergence from the teachers' target."""
    gamma: NonNegative = 0.0
    """Weight of the agreement regulariser R."""
    temperature: Positive | Literal["variance"] = 2.0
    """Temperature T of the targets; the term is scaled by T^2. Routing always happens at temperature 1. ``variance`` is
    one for each token, from what its teachers differ by. T 1 does as well as 2, and T 4 forgets
    (``docs/evidence.md``)."""
    variance: Variance | None = None
    """How ``temperature: variance`` is reckoned, where that is not by the defaults."""
    routing: RoutingTable | None = None
    """Which table decides, per token, who teaches: ``agreement`` of the teachers (once called ``seed``), their
    ``surprise`` at the gold label, or ``cascade``: the first teacher that is confident, else the label; the recipe's
    when left out."""
    confidence: Literal["top1", "entropy"] = "top1"
    """How sure a teacher is of a token: its largest probability, or 1 less its normalised entropy."""
    js_threshold: NonNegative = 0.1
    """Teachers agree below this Jensen-Shannon divergence, in nats (0 to ln 2)."""
    confidence_threshold: Probability = 0.8
    """Teacher 1 is confident above this confidence."""
    agreement_confidence: Probability | None = None
    """Where set, agreement counts only if one teacher is at least this confident."""
    gold_weight: NonNegative = 0.5
    """Weight g of a token on the gold route of ``routing: agreement``; surprise routing uses 1."""
    surprise: Literal["probability", "entropy"] = "probability"
    """When a teacher is surprised by the gold label y: p(y) < tau, or -ln p(y) > H(p) + margin."""
    surprise_tau: Probability = 0.5
    """tau of ``surprise: probability``. Between 0.25 and 0.75 nothing else came out (``docs/evidence.md``); on prose a
    large pretrained model gives most words less than 0.5, so take 0.3 there."""
    surprise_margin: float = 1.0
    """In nats."""
    fusion: Literal["confidence", "mean", "precision"] = "confidence"
    """What teachers weigh in a blend: as sure as they sound (with surprise routing: as likely as they find the label),
    all the same, or by their measured error on gold labels (``docs/fusion.md``)."""
    fusion_rho: Annotated[float, Field(ge=0.0, le=4.0)] = 1.0
    """``precision``: a teacher weighs (its error less the least error + ``fusion_floor``)^-rho; 0 is the mean."""
    fusion_floor: Positive = 0.05
    """``precision``: in nats. Teachers whose errors differ by much less than this weigh the same."""
    fusion_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """``precision``: how much of what was measured before a step still counts after it."""
    throttle: bool | None = None
    """Take weight from a source (a teacher, a file of a retrieval teacher) that makes gold labels less likely, and give
    it back when it helps again. When left out, on where ``teachers.others`` speak."""
    pooling: Literal["probabilities", "logits"] = "probabilities"
    """Blend of teachers: mixture of probabilities, or normalised log-linear pool."""
    direction: Direction | None = None
    """KL(target || student), KL(student || target), or generalised Jensen-Shannon with ``jsd_weight``; the recipe's
    when left out: ``reverse`` where the student writes, else ``forward``."""
    jsd_weight: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Weight of the target in the mixture of ``direction: jsd``; 0.5 treats both alike."""
    ce_on: Literal["gold", "fallback"] = "gold"
    """Cross-entropy on every gold-labelled token, or only on the gold route."""
    granularity: Literal["token", "sequence"] = "token"
    """Route each token, or each row by its mean statistics (not with surprise routing)."""
    shares: Shares = Shares()
    written: Written | None = None
    """What the student writes itself, with the recipes that let it write."""
    steps: Count = 1200
    """Steps of the optimiser. ``ladder plan`` says how often each new row is read in them; 20 to 50 times teach a small
    model a fact, 5 a pretrained one (``docs/recipe.md``)."""
    lr: Positive = 1.5e-5
    """Highest learning rate. The default is a cautious one for all weights of a pretrained model; LoRA takes 2e-4 to
    2e-3, a small model from scratch 1e-3 to 3e-3."""
    batch_size: Count = 16
    """Rows in a step, over all sources and accumulation steps."""
    accumulation: Count = 1
    """Micro-batches a step is split into; changes memory, not the gradient."""
    warmup: Probability = 0.05
    """Share of the steps over which the learning rate rises."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up: to 0 along half a cosine or a line, or not at all."""
    optimizer: Annotated[str, Named(OPTIMIZERS)] = "adamw"
    """What moves the weights: ``adamw`` (keeps two numbers for each trained one), ``sgd`` (with momentum 0.9: keeps
    one; its learning rates are larger), or that of an installed package."""
    weight_decay: NonNegative = 0.01
    """Of matrices, decoupled from the gradient; vectors do not decay."""
    max_grad_norm: Positive = 1.0
    """A gradient that is longer is scaled down to this norm."""
    capacity: Capacity | None = None
    """Show how many of the student's heads explore, and the hazard of each layer; nothing is watched when left out."""

    @model_validator(mode="before")
    @classmethod
    def _old_words(cls, fields: Any) -> Any:
        return modern_section("training_params", fields)


class Dreams(Section):
    """Text that a teacher writes itself and the student learns its full distribution on (generative replay)."""

    count: Count | None = None
    """Rows written before training; when left out, one for each time that a step reads one, at most 2,400."""
    temperature: Positive = 1.0
    """Of sampling. At 1 they are the teacher's own distribution; 0.7 and 1.3 kept a little less."""
    max_new_tokens: Count = 48
    """Longest dream in new tokens; the length of a turn for a model that talks."""
    prompts: str = "auto"
    """``start`` (the model's own start token), ``template`` (the opening of a user turn), ``replay`` (openings of the
    ancestors' rows), a file, or ``auto``: ``replay`` where rows are replayed, else ``start``, or ``template`` for a
    model without a start token, or the first words of the new rows for one without either. A file has one prompt a
    line: a text that a dream goes on with, or what it answers, as probes ask it (``{"prompt": ..., "chat": true}``,
    with ``system`` or ``messages``)."""
    teacher: Literal["teacher1", "teacher2", "both"] = "teacher1"
    """Who dreams. Both together kept no more than the parent alone, and take two models (``docs/evidence.md``)."""
    min_new_tokens: Annotated[int, Field(ge=1)] = 2
    """Shorter dreams are dropped, and so are those longer than ``data.max_length``."""


class Rehearsal(Section):
    """Which of its ancestors' lessons a child rehearses how often, and who dreams of them, by what exams have measured:
    what is known of a lesson now, beside the best that any ancestor knew of it (``docs/rehearsal.md``)."""

    shares: Literal["even", "fading"] = "even"
    """``even`` replays each row that ancestors left alike, and dreams begin with each alike; ``fading`` takes the rows
    of a lesson once more for each ``tolerance`` that its parent lies below the best, at most ``most`` times."""
    most: Annotated[int, Field(ge=1)] = 4
    """Times that the rows of a fading lesson are taken, at most, so that what is well known keeps a place."""
    older_teachers: Annotated[int, Field(ge=0)] = 0
    """Older generations, at most, that dream in the parent's stead of lessons that it has lost: for each lesson the
    newest one that still knows it. Each is one more model in memory, and is run only where it has something to say."""
    tolerance: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """How far below the best that any ancestor answered a generation still knows a lesson. As
    ``gates.recall.max_drop``: what one gate lets pass is noise here, too."""


class Stabilizers(Section):
    """What keeps the child close to its ancestors."""

    ema: bool = True
    """Evaluate and save an exponential moving average of the trajectory of this one run."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """What of the average stays at each step. The default is for thousands of steps; take 0.98 for a few hundred and
    0.9 for fewer than a hundred. ``ladder plan`` warns where the start still weighs in the average."""
    replay_buffer: bool = True
    """Mix in the samples that all ancestors left."""
    replay_size: Annotated[int, Field(ge=0)] = 100
    """Rows that this generation leaves behind for its descendants."""
    replay: Literal["rows", "hashed", "none"] = "rows"
    """How it leaves them: the rows themselves; only their SHA-256, for data that is private (descendants name their
    files in ``data.replay_from``); or not at all. Only with ``rows`` are the dreams left behind, too."""
    token_masking: bool = False
    """Remove taboo tokens from teachers' and student's distributions, and never generate them."""
    taboo_words: list[str] = []
    """Words whose tokens ``token_masking`` removes, and which the laws look for in what the child says."""
    taboo_token_ids: list[Annotated[int, Field(ge=0)]] = []
    """The same by the ids of tokens."""
    dreams: Dreams | bool | None = None
    """On for every child with a parent unless the recipe is ``logit_blending_kd``."""
    rehearsal: Rehearsal = Rehearsal()
    """What is rehearsed of what fades; nothing special where it is left out."""


class Seeds(Section):
    """Where randomness comes from."""

    init: Seed = 0
    """Fresh weights and dropout."""
    data: Seed = 0
    """Order of the rows and the replay sample."""
    dreams: Seed = 0
    """What teachers dream."""


class Manifest(Section):
    """One step of the ladder."""

    evolution_request: EvolutionRequest
    teachers: Teachers = Teachers()
    student: Student = Student()
    data: Data | None = None
    training_params: TrainingParams = TrainingParams()
    steering: Steer | None = None
    """Which concepts of its parent a child takes on; with ``training_method: steering_distillation`` and no other."""
    stabilizers: Stabilizers = Stabilizers()
    gates: Gates = Gates()
    laws: Laws = Laws()
    budget: Budget = Budget()
    seeds: Seeds = Seeds()
    runtime: Runtime = Runtime()
