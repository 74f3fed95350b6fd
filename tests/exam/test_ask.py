"""Sitting the exam: batches change nothing, what must not be generated is not, and broken models are refused."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ladder.errors import GateError
from ladder.exam.ask import (
    _Choice,
    _Writer,
    answer_prompts,
    examine,
    run_prompts,
    sample_openings,
    sample_texts,
    write_answers,
)
from ladder.exam.exam import Exam, Noise, Probe, Prompt, PromptSet, Sampling
from ladder.exam.question import encode_answered, encode_prompt, encode_question
from ladder.manifest.schema import Decoding
from ladder.models.chat import Ending
from ladder.models.digest import folder_digest
from ladder.models.intake import save_model
from ladder.models.load import load_model, load_tokenizer
from ladder.system.files import save_folder

PROMPTS = [
    Prompt(text)
    for text in (
        "the capital of france is",
        "a cat",
        "what is the capital of peru? and of france? and of the mat?",
        "so",
        "the",
        "it was a mat! was it? so it was, so it was",
        "x",
    )
]
FREE = Decoding(max_new_tokens=12, stop=[])
CHAT = """{% for message in messages %}[{{ message.role }}]{{ message.content }}
{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"""


@torch.no_grad()
def continued(
    model, ids: list[int], count: int, banned: set[int] = frozenset(), ends: set[int] = frozenset()
) -> list[int]:
    """Greedy ids one by one, without batch, padding or cache: what every faster way must equal."""
    written: list[int] = []
    while len(written) < count and not (written and written[-1] in ends):
        logits = model(input_ids=torch.tensor([ids + written])).logits[0, -1]
        logits[list(banned)] = -torch.inf
        written.append(int(logits.argmax()))
    return written[:-1] if written and written[-1] in ends else written


def plain(model, tokenizer, prompts=PROMPTS, count=12, banned=frozenset(), ends=None) -> list[str]:
    ends = {tokenizer.eos_token_id} if ends is None else ends
    ids = [continued(model, encode_prompt(tokenizer, prompt.text), count, banned, ends) for prompt in prompts]
    return [tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False) for row in ids]


def gpt2(tokenizer) -> GPT2LMHeadModel:
    """Learned absolute positions: wrong position ids under left padding show here."""
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2, tie_word_embeddings=False
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return model


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_batches_change_no_answer(model, tokenizer, family, batch_size):
    model = gpt2(tokenizer) if family == "gpt2" else model
    decoding = Decoding(max_new_tokens=12, batch_size=batch_size, stop=[])
    expected = plain(model, tokenizer)
    assert len(set(expected)) == len(PROMPTS), "a model that answers everything alike tests nothing"
    assert answer_prompts(model, tokenizer, PROMPTS, decoding) == expected


def sureness(model, tokenizer, prompt: Prompt, stops: list[str], taboo: set[int] = frozenset()) -> float:
    """Product of the tokens' probabilities, one forward a token, to the end token or where the text holds a stop."""
    ids, written, found = encode_prompt(tokenizer, prompt.text), [], 1.0
    ends = {tokenizer.eos_token_id}
    while len(written) < 12 and not (written and written[-1] in ends):
        with torch.no_grad():
            logits_V = model(input_ids=torch.tensor([ids + written])).logits[0, -1].double()
        allowed_V = logits_V.clone()
        allowed_V[list(taboo)] = -torch.inf
        written.append(int(allowed_V.argmax()))
        found *= float(logits_V.softmax(-1)[written[-1]])
        if any(stop in tokenizer.decode(written, skip_special_tokens=True) for stop in stops):
            break
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_confidence_is_the_probability_of_the_answer(model, tokenizer, batch_size):
    """Up to the token that ends it, and that one too, however long the rest of its batch goes on."""
    with torch.no_grad():
        model.lm_head.weight.mul_(5)
        model.lm_head.weight[tokenizer.eos_token_id] *= 3
    free = answer_prompts(model, tokenizer, PROMPTS, FREE)
    stops = [free[3][3:5], free[2][:2]]
    decoding = Decoding(max_new_tokens=12, batch_size=batch_size, stop=stops)
    found = write_answers(model, tokenizer, PROMPTS, decoding)
    expected = [sureness(model, tokenizer, prompt, stops) for prompt in PROMPTS]
    assert [answer.confidence for answer in found] == pytest.approx(expected, rel=1e-4, abs=0)
    assert min(expected) < 0.1 < 0.4 < max(expected), "answers of one confidence test nothing"
    assert len(free[1]) < 5, "no row ends before its batch does"


def test_confidence_is_what_the_model_thought_before_tokens_were_banned(model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    taboo = {row[0] for row in (continued(model, encode_prompt(tokenizer, prompt.text), 1) for prompt in PROMPTS)}
    found = [answer.confidence for answer in write_answers(model, tokenizer, PROMPTS, FREE, sorted(taboo))]
    expected = [sureness(model, tokenizer, prompt, [], taboo) for prompt in PROMPTS]
    assert found == pytest.approx(expected, rel=1e-4, abs=0)


@pytest.mark.parametrize("pad", ["eos_token", None])
def test_the_pad_token_does_not_matter(model, tokenizer, pad):
    expected = plain(model, tokenizer)
    other = copy.deepcopy(tokenizer)
    other.pad_token = pad and other.eos_token
    assert other.pad_token_id == (other.eos_token_id if pad else None)
    assert answer_prompts(model, other, PROMPTS, FREE) == expected


def test_no_prompts_no_answers(model, tokenizer):
    assert answer_prompts(model, tokenizer, [], FREE) == []


@pytest.mark.parametrize("batch_size", [1, 64])
def test_answers_end_before_the_first_stop_string(model, tokenizer, batch_size):
    free = answer_prompts(model, tokenizer, PROMPTS, FREE)
    stops = [free[0][3:5], free[0][7:9], free[1][4:6], free[2][:2]]
    decoding = Decoding(max_new_tokens=12, batch_size=batch_size, stop=stops)
    expected = [text[: min([text.find(stop) for stop in stops if stop in text] or [len(text)])] for text in free]
    assert expected != free
    assert expected[2] == ""
    assert answer_prompts(model, tokenizer, PROMPTS, decoding) == expected


def test_one_token_may_hold_several_stop_strings(model, tokenizer):
    """Decoding cannot end between them, so the text is cut at the earliest."""
    writer = _Writer(model, tokenizer, 12, 64, (), ["c", "b", "bc"])
    assert writer.text(tokenizer.encode("aabcbc", add_special_tokens=False)) == "aa"


def test_decoding_ends_with_the_last_row(model, tokenizer, monkeypatch):
    """Stop strings save time too: no forward after every row has said one."""
    free = answer_prompts(model, tokenizer, PROMPTS[:2], FREE)
    calls = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))
    answer_prompts(model, tokenizer, PROMPTS[:2], Decoding(max_new_tokens=12, stop=[text[:1] for text in free]))
    assert 1 <= len(calls) < 6


def test_every_declared_end_token_ends(model, tokenizer):
    """A chat model's generation settings list more ends than its tokenizer has."""
    ids = encode_prompt(tokenizer, PROMPTS[0].text)
    ends = {continued(model, ids, 5)[4], tokenizer.eos_token_id}
    model.generation_config.eos_token_id = sorted(ends)
    expected = plain(model, tokenizer, ends=ends)
    assert expected != plain(model, tokenizer)
    assert answer_prompts(model, tokenizer, PROMPTS, FREE) == expected


def test_the_models_own_sampling_settings_play_no_part(model, tokenizer):
    expected = plain(model, tokenizer)
    settings = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0, "min_new_tokens": 12, "num_beams": 2}
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    before = model.generation_config
    assert answer_prompts(model, tokenizer, PROMPTS, FREE) == expected
    assert model.generation_config is before
    assert before.repetition_penalty == 9.0


def test_taboo_tokens_are_never_generated(model, tokenizer):
    taboo = {row[0] for row in (continued(model, encode_prompt(tokenizer, prompt.text), 1) for prompt in PROMPTS)}
    expected = plain(model, tokenizer, banned=taboo)
    assert expected != plain(model, tokenizer)
    assert answer_prompts(model, tokenizer, PROMPTS, FREE, sorted(taboo)) == expected


def test_padding_rows_of_the_head_are_never_generated(model, tokenizer):
    expected = plain(model, tokenizer)
    real = len(tokenizer)
    model.resize_token_embeddings(real + 64)
    with torch.no_grad():
        model.lm_head.weight[real:] = 100 * model.lm_head.weight[:64]
    assert max(continued(model, encode_prompt(tokenizer, "the"), 5)) >= real
    assert answer_prompts(model, tokenizer, PROMPTS, FREE) == expected


@pytest.mark.parametrize("taboo", [[-1], [5000]])
def test_taboo_ids_outside_the_vocabulary_are_refused(model, tokenizer, taboo):
    with pytest.raises(GateError, match="outside the vocabulary"):
        answer_prompts(model, tokenizer, PROMPTS, FREE, taboo)


def test_a_model_that_may_say_nothing_is_refused(model, tokenizer):
    with pytest.raises(GateError, match="every token is taboo"):
        answer_prompts(model, tokenizer, PROMPTS, FREE, range(len(tokenizer)))


def test_a_prompt_that_does_not_fit_is_refused(model, tokenizer):
    with pytest.raises(GateError, match="128 positions"):
        answer_prompts(model, tokenizer, [Prompt("x " * 150)], FREE)


OPENINGS = [[1], [1, 70], [1, 71, 72], [1], [1]]


def test_samples_depend_on_seed_and_row_only(model, tokenizer):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = sample_texts(model, tokenizer, OPENINGS, Sampling(5, 10, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert sample_texts(model, tokenizer, OPENINGS, Sampling(5, 10, seed=1), batch_size=2) == first
    assert sample_texts(model, tokenizer, OPENINGS[:2], Sampling(5, 10, seed=1)) == first[:2]
    assert sample_texts(model, tokenizer, OPENINGS, Sampling(5, 10, seed=2)) != first
    assert len({first[0], first[3], first[4]}) == 3, "equal openings are continued differently"


def test_a_draw_has_the_probabilities_of_the_model():
    """Evenly spread uniform numbers hit each token as often as it is probable, a banned one never."""
    probabilities = torch.tensor([0.2, 0.1, 0.4, 0.05, 0.25])
    uniform_BT = ((torch.arange(1000) + 0.5) / 1000)[:, None]
    choice = _Choice(torch.tensor([2, 4]), width=3, uniform_BT=uniform_BT)
    drawn = choice(torch.zeros(1000, 3, dtype=torch.long), probabilities.log().expand(1000, 5)).argmax(-1)
    allowed = torch.tensor([0.2, 0.1, 0.0, 0.05, 0.0]) / 0.35
    assert torch.bincount(drawn, minlength=5) / 1000 == pytest.approx(allowed, abs=0.002)


def test_the_largest_number_draws_no_impossible_token():
    uniform_BT = torch.tensor([[1 - 2**-24], [0.0]])
    choice = _Choice(torch.tensor([0, 4]), width=1, uniform_BT=uniform_BT)
    drawn = choice(torch.zeros(2, 1, dtype=torch.long), torch.tensor([0.3, 1.0, 0.1, 0.7, 2.0]).expand(2, 5)).argmax(-1)
    assert drawn.tolist() == [3, 1]


def test_the_second_step_uses_the_second_number():
    uniform_BT = torch.tensor([[0.15, 0.95]])
    choice = _Choice(torch.tensor([], dtype=torch.long), width=1, uniform_BT=uniform_BT)
    even = torch.zeros(1, 10)
    drawn = [choice(torch.zeros(1, length, dtype=torch.long), even).argmax().item() for length in (1, 2)]
    assert drawn == [1, 9]


@pytest.mark.parametrize("sampled", [False, True])
def test_logits_that_are_not_finite_are_refused(model, tokenizer, sampled):
    with torch.no_grad():
        model.lm_head.weight[70] = 3e38
    with pytest.raises(GateError, match="logits are not finite"):
        if sampled:
            sample_texts(model, tokenizer, OPENINGS, Sampling(5, 4))
        else:
            answer_prompts(model, tokenizer, PROMPTS, FREE)


def test_a_single_nan_logit_is_refused():
    scores = torch.zeros(2, 5)
    scores[1, 3] = torch.nan
    with pytest.raises(GateError, match="logits are not finite"):
        _Choice(torch.tensor([3]), 0, None)(torch.zeros(2, 1), scores)


def test_raw_prompts_begin_as_training_rows_do(tokenizer):
    ids = encode_prompt(tokenizer, "the capital")
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == "the capital"
    assert tokenizer.eos_token_id not in encode_prompt(tokenizer, "the <|end|>"), "control tokens in a text are text"
    other = copy.deepcopy(tokenizer)
    other.bos_token = None
    other.update_post_processor()
    assert encode_prompt(other, "the capital") == ids[1:]
    with pytest.raises(GateError, match="no tokens"):
        encode_question(other, Prompt(""))


def test_chat_prompts_are_user_turns(tokenizer):
    with pytest.raises(GateError, match="no chat template"):
        encode_question(tokenizer, Prompt("hello", chat=True))
    other = copy.deepcopy(tokenizer)
    other.chat_template = CHAT
    assert other.decode(encode_question(other, Prompt("hello", chat=True))) == "[user]hello\n[assistant]"
    assert encode_question(other, Prompt("hello")) == encode_prompt(tokenizer, "hello")


@pytest.mark.parametrize(
    ("count", "prompts", "starts"), [(0, PROMPTS, 0), (4, PROMPTS, 2), (5, PROMPTS, 3), (3, [], 3), (40, PROMPTS, 20)]
)
def test_half_of_the_samples_begin_with_the_start_token(tokenizer, count, prompts, starts):
    openings = sample_openings(tokenizer, prompts, count)
    start = [tokenizer.bos_token_id]
    assert (len(openings), openings.count(start)) == (count, starts)
    if count == 40:
        assert {tuple(ids) for ids in openings} == {
            tuple(start),
            *(tuple(encode_question(tokenizer, prompt)) for prompt in PROMPTS),
        }


def test_samples_without_a_start_token_begin_with_prompts(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.bos_token = None
    other.update_post_processor()
    assert sample_openings(other, PROMPTS, 7) == [encode_question(other, prompt) for prompt in PROMPTS]
    assert sample_openings(other, [], 0) == []
    with pytest.raises(GateError, match="nothing to sample from"):
        sample_openings(other, [], 1)


PROBES = tuple(Probe(prompt.text, "x") for prompt in PROMPTS)
EXAM = Exam(
    recall={"Tiny-G000": PROBES[4:], "Tiny-G001": ()},
    generalize=PROBES[:4],
    tone_prompts=(PROMPTS[5], PROMPTS[0], Prompt("was it?")),
    decoding=FREE,
    sampled=Sampling(6, 5, seed=3),
    law_prompts=(PROMPTS[6], Prompt("is it a mat?")),
)


def test_a_folder_sits_the_whole_exam(tiny_folder):
    model, tokenizer = load_model(tiny_folder), load_tokenizer(tiny_folder)
    expected = plain(model, tokenizer)
    answers = examine(tiny_folder, EXAM)
    assert answers.recall == {"Tiny-G000": tuple(expected[4:]), "Tiny-G001": ()}
    assert answers.generalize == tuple(expected[:4])
    assert answers.tone == (expected[5], expected[0], *plain(model, tokenizer, [Prompt("was it?")]))
    assert answers.laws == (expected[6], *plain(model, tokenizer, [Prompt("is it a mat?")]))
    assert answers.digest == folder_digest(tiny_folder)
    assert len(answers.sampled) == 6
    assert answers.certainty.keys() == set(EXAM.prompt_set().prompts)
    sure = answers.certainty[PROMPTS[1]]
    ids = encode_prompt(tokenizer, PROMPTS[1].text)
    assert sure.confidence == pytest.approx(sureness(model, tokenizer, PROMPTS[1], []), rel=1e-4, abs=0)
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([ids])).logits[0]
    nats = torch.distributions.Categorical(logits=logits_TV).entropy().mean()
    assert (sure.entropy, sure.tokens) == (pytest.approx(float(nats), abs=1e-5), len(ids))
    assert answers.noise == Noise(asked=len(EXAM.prompt_set().prompts), changed=0)
    assert examine(tiny_folder, EXAM) == answers
    assert pickle.loads(pickle.dumps(answers)) == answers


def test_a_parent_is_asked_with_its_childs_template(tiny_folder, model, tokenizer, tmp_path):
    other = copy.deepcopy(tokenizer)
    other.chat_template = CHAT
    child = save_folder(tmp_path / "child", lambda folder: save_model(folder, model, other))
    exam = Exam(generalize=(Probe("hello", "x", chat=True),), decoding=FREE, sampled=Sampling(0))
    with pytest.raises(GateError, match="no chat template"):
        examine(tiny_folder, exam)
    asked = examine(tiny_folder, exam, tokenizer_folder=child)
    assert asked.generalize == examine(child, exam).generalize
    assert asked.digest == folder_digest(tiny_folder) != folder_digest(child)


def test_the_exams_taboo_holds_for_answers_and_samples(tiny_folder, tokenizer):
    """Only one token is left to say, so every text repeats it."""
    word = tokenizer.encode("a", add_special_tokens=False)[0]
    taboo = tuple(id_ for id_ in range(len(tokenizer)) if id_ != word)
    exam = Exam(generalize=PROBES[:2], decoding=FREE, sampled=Sampling(2, 5), taboo_ids=taboo)
    assert exam.texts(examine(tiny_folder, exam)) == {
        "generalize": ("a" * 12,) * 2,
        "tone": (),
        "laws": (),
        "sampled": ("a" * 5,) * 2,
    }


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(model, tokenizer, tmp_path, bad):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = bad
    folder = save_folder(tmp_path / "broken", lambda folder: save_model(folder, model, tokenizer))
    with pytest.raises(GateError, match=r"layers\.1\.mlp\.up_proj\.weight") as caught:
        examine(folder, EXAM)
    assert caught.value.where == str(folder)


def test_importing_the_room_imports_no_torch():
    heavy = "[name for name in ('torch', 'transformers', 'ray', 'mlflow') if name in sys.modules]"
    command = f"import sys, ladder.gates; print({heavy})"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=root, check=True)
    assert ran.stdout.strip() == "[]"


SPEAKING = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
ASKING = SPEAKING + "{% if add_generation_prompt %}<assistant>{% endif %}"
TALK = [Prompt(prompt.text, chat=True) for prompt in PROMPTS]


def talkative(model, tokenizer) -> None:
    """Let the model write newlines: it says one where it would have said what it says most."""
    said = [id_ for prompt in PROMPTS for id_ in continued(model, encode_prompt(tokenizer, prompt.text), 24)[2:]]
    often, newline = max(set(said), key=said.count), tokenizer.encode("\n", add_special_tokens=False)[0]
    head = model.get_output_embeddings().weight.data
    head[[often, newline]] = head[[newline, often]]


def test_a_newline_ends_raw_answers_and_the_template_ends_chat_answers(model, tokenizer):
    other = copy.deepcopy(tokenizer)
    other.chat_template = ASKING
    talkative(model, tokenizer)
    free, default = Decoding(max_new_tokens=24, stop=[]), Decoding(max_new_tokens=24)
    mixed = [*PROMPTS, *TALK]
    whole, cut = (answer_prompts(model, other, mixed, decoding) for decoding in (free, default))
    raw, chat = whole[: len(PROMPTS)], whole[len(PROMPTS) :]
    assert any("\n" in text for text in raw) and any("\n" in text for text in chat), "or nothing is tested"
    assert cut == [*(text.partition("\n")[0] for text in raw), *(text.partition("</assistant>")[0] for text in chat)]
    written = answer_prompts(model, other, mixed, Decoding(max_new_tokens=24, stop=["\n"]))
    assert written == [text.partition("\n")[0] for text in whole], "what is written means what it says"


def test_a_chat_answer_ends_at_the_token_that_ends_a_turn(model, tokenizer, monkeypatch):
    """Also where that is no end token of the model; a raw answer in the same batch goes on."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = ASKING
    ids = continued(model, encode_question(other, TALK[0]), 12)
    end = next(id_ for place, id_ in enumerate(ids) if place > 3 and id_ not in ids[:place])
    monkeypatch.setattr(
        "ladder.exam.ask.ending",
        lambda tokenizer, chat, stops: Ending(frozenset({end}) if chat else frozenset()),
    )
    raw, chat = answer_prompts(model, other, [PROMPTS[1], TALK[0]], FREE)
    expected = continued(model, encode_question(other, PROMPTS[1]), 12, ends={tokenizer.eos_token_id})
    assert chat == other.decode(ids[: ids.index(end)], skip_special_tokens=True)
    assert raw == other.decode(expected, skip_special_tokens=True)
    assert _Writer(model, other, 12, 4, (), None).text(ids) == chat


def test_a_paper_is_asked_on_its_day(tiny_folder, tmp_path, monkeypatch):
    tokenizer, asked = load_tokenizer(tiny_folder), []
    tokenizer.chat_template = "{{ strftime_now('%Y') }}" + ASKING
    tokenizer.save_pretrained(tmp_path / "asker")
    prompt_set = PromptSet(prompts=(TALK[0],), decoding=FREE, sampled=Sampling(0), today="1999-01-01")

    def ask(tokenizer, prompt, controls):
        asked.append(tokenizer.decode(encode_question(tokenizer, prompt, controls)))
        return encode_question(tokenizer, prompt, controls)

    monkeypatch.setattr("ladder.exam.ask.encode_question", ask)
    run_prompts(tiny_folder, prompt_set, tokenizer_folder=tmp_path / "asker")
    assert asked == ["1999<user>the capital of france is</user><assistant>"]


def test_control_tokens_in_raw_prompts_are_what_the_paper_says(tokenizer):
    prompt = Prompt("<|begin|>the<|end|>")
    assert encode_question(tokenizer, prompt, "parse") == [1, *encode_prompt(tokenizer, "the")[1:], 2]
    assert not {1, 2} & set(encode_question(tokenizer, prompt)[1:])


def test_an_answer_is_read_where_rows_teach_it(tokenizer):
    """Behind what the template leads with, which no option has to make likely."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ '<think></think>' if m.role == 'assistant' else '' }}"
        "{{ m.content | trim }}</{{ m.role }}>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    ids, first = encode_answered(other, Prompt("so", chat=True), " france")
    assert other.decode(ids[:first]) == "<user>so</user><assistant><think></think>"
    assert other.decode(ids[first:]) == "france", "trimmed, as the template trims it in rows"
    assert encode_answered(other, Prompt("so"), " france")[1] == len(encode_prompt(other, "so"))
