"""How good vectors are: whether they tell concepts apart in a setting that they have not seen, hold together, differ
from each other, and stand for more than one neuron or the wording of a few texts.

Every figure is said with the number of texts behind it, and what chance gives where that is not nothing.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ladder.concepts.corpus import STORIES, Text
from ladder.concepts.fit import Method, contrasts_of, directions
from ladder.concepts.reading import Read, down_columns

FEWEST = 5
"""Texts of a concept below which its figures get no verdict: the first component of two has all of their variance."""
CLEAN, FRAGMENTED = 0.7, 0.4
ONE_NEURON, REDUNDANT, SPARSE = 0.6, 0.9, 0.5
RIDGE = 0.01
NEAREST, WORST, HEADS = 5, 2, 10
DRAWS = 200
"""Permutations behind what chance gives."""
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


@dataclass(frozen=True)
class Split:
    """One setting that was held out.

    Args:
        n: its texts that show a concept.
        accuracy: share of them that the vectors of all read layers together tell rightly.
        words: that of a bag of words, fitted on the same texts; the better of two ways to fit one.
        by_layer: accuracy of each layer by itself.
        told: by concept, how many of its texts are told rightly by all layers together, and of how many.
    """

    setting: str
    n: int
    accuracy: float
    words: float
    by_layer: Mapping[int, float]
    told: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Concept:
    """One concept at the layer where the vectors tell held-out texts apart best.

    Args:
        n: its texts.
        share: variance of its texts along their first principal component, 0 to 1; None for fewer than two.
        share_by_chance: the median of that for as many texts of any concept.
        cosines: of each text, less its setting's other texts, with the vector that is made without it, by its place.
        worst: the two places with the least of these.
        neuron: the largest |cosine| with what one neuron of the layer writes; None where the layer has no such part.
        neuron_place: which one, and ``neuron_by_chance``: what the best of as many random directions reaches.
        nearest: up to five other concepts by |centred cosine|, with it.
        redundancy: share of the vector that the others explain (ridge), 0 to 1; None with fewer than three concepts.
        redundancy_by_chance: 95th percentile of that where texts change their concepts within each setting.
        explained_by: up to five others with their signed weight.
        heads: up to ten heads as (layer, head, norm of the mean difference, selectivity), the largest norm first.
        heads_share: of all heads' norms, in those ten; None where there are no more than ten.
        told: share of its held-out texts that all read layers together tell rightly; None where none was held out.
        verdict: in words; empty below five texts.
    """

    name: str
    n: int
    share: float | None
    share_by_chance: float | None
    cosines: Mapping[str, float]
    worst: Sequence[str]
    neuron: float | None
    neuron_place: int | None
    neuron_by_chance: float | None
    nearest: Sequence[tuple[str, float]]
    redundancy: float | None
    redundancy_by_chance: float | None
    explained_by: Sequence[tuple[str, float]]
    heads: Sequence[tuple[int, int, float, float]]
    heads_share: float | None
    told: float | None
    verdict: str


@dataclass(frozen=True)
class Clustering:
    """Whether families of concepts cluster at a layer: mean centred cosine within less that between families, and how
    often concepts dealt out by chance are as far apart."""

    layer: int
    gap: float
    p_value: float


@dataclass(frozen=True)
class Quality:
    """All of it.

    Args:
        layer: the one that the concepts' figures are of, and ``depth`` where it stands, 0 to 1.
        chance: accuracy of guessing.
        baselines: texts without a concept, against which redundancy is measured where there are five or more.
        cosines: centred cosines of the vectors at ``layer``, in the order of the concepts.
        skipped: layers of which a figure is missing, in words.
    """

    layer: int
    depth: float
    layers: Sequence[int]
    chance: float
    baselines: int
    splits: Sequence[Split]
    concepts: Sequence[Concept]
    cosines: Sequence[Sequence[float]]
    clustering: Sequence[Clustering]
    skipped: Sequence[str]

    @property
    def accuracy(self) -> float | None:
        """Over all held-out texts; None where no setting could be held out."""
        return _overall([(one.n, one.accuracy) for one in self.splits])

    @property
    def words(self) -> float | None:
        """That of a bag of words."""
        return _overall([(one.n, one.words) for one in self.splits])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"accuracy": self.accuracy, "words": self.words}


def _overall(counted: Sequence[tuple[int, float]]) -> float | None:
    total = sum(n for n, _ in counted)
    return sum(n * value for n, value in counted) / total if total else None


def judge(
    read: Read,
    texts: Sequence[Text],
    concepts: Sequence[str],
    families: Mapping[str, Sequence[str]],
    layers: Sequence[nn.Module],
    method: Method = "mean",
    seed: int = 0,
) -> Quality:
    """The quality of vectors, from the very residuals that they are made of.

    Args:
        read: residuals of the texts, and heads where they were kept.
        layers: the model's, of which neurons are read.
        seed: of permutations and random directions.
    """
    splits = held_out(read.by_layer, texts, concepts, method)
    layer = best_layer(splits, [*read.by_layer])
    draw = random.Random(seed)
    vectors_CD = directions(read.by_layer[layer], texts, concepts, method)
    columns_FD = down_columns(layers[layer])
    skipped = [f"layer {layer} has no single feed-forward part, so no neuron is compared"] if columns_FD is None else []
    if missing := [one for one in read.by_layer if one not in read.heads]:
        skipped.append(f"layers {', '.join(map(str, missing))} have no attention heads that are read")
    shown = _Shown(read, layer, texts, concepts, vectors_CD, columns_FD, splits, draw)
    return Quality(
        layer=layer,
        depth=layer / max(1, len(layers) - 1),
        layers=[*read.by_layer],
        chance=1 / len(concepts),
        baselines=sum(not one.concept for one in texts),
        splits=splits,
        concepts=[_with_verdict(shown.concept(place), 1 / len(concepts)) for place in range(len(concepts))],
        cosines=shown.cosines_CC.tolist(),
        clustering=_clusterings(read.by_layer, texts, concepts, families, draw),
        skipped=skipped,
    )


def held_out(
    by_layer: Mapping[int, Tensor], texts: Sequence[Text], concepts: Sequence[str], method: Method = "mean"
) -> list[Split]:
    """Each setting held out once: vectors of the others tell its texts apart. Stories are always learned from.

    A text belongs to the concept whose projection lies highest, in deviations of the texts that were learned from. What
    the setting adds to all of its texts is taken off by their mean, for vectors and bag of words alike.
    """
    found = []
    for setting in sorted({one.setting for one in texts if one.concept and one.setting != STORIES and not one.asked}):
        test = [place for place, one in enumerate(texts) if one.setting == setting]
        train = [place for place, one in enumerate(texts) if one.setting != setting]
        known = [name for name in concepts if contrasts_of([texts[p] for p in train], [name]).any()]
        asked = [n for n, place in enumerate(test) if texts[place].concept in known]
        if len(known) < 2 or len({texts[test[n]].concept for n in asked}) < 2:
            continue
        pick = _Picking([texts[p] for p in train], [texts[p] for p in test], known, asked)
        scores = {
            layer: pick.scores(residual_ND[train].double(), residual_ND[test].double(), method)
            for layer, residual_ND in by_layer.items()
        }
        words = max(
            pick.accuracy(pick.scores(*_bags(pick.train, pick.test), "mean")),
            pick.accuracy(_bayes(pick.train, pick.test, known)),
        )
        layerwise = {layer: pick.accuracy(score_NC) for layer, score_NC in scores.items()}
        both = torch.stack([*scores.values()]).sum(0)
        found.append(Split(setting, len(asked), pick.accuracy(both), words, layerwise, pick.told(both)))
    return found


@dataclass(frozen=True)
class _Picking:
    """Telling the texts of one setting apart by those of others.

    Args:
        asked: places in ``test`` of the texts that show a concept which is ``known``.
    """

    train: Sequence[Text]
    test: Sequence[Text]
    known: Sequence[str]
    asked: Sequence[int]

    def scores(self, train_ND: Tensor, test_ND: Tensor, method: Method) -> Tensor:
        """[N, C] of the test texts."""
        vectors_CD = normalize(directions(train_ND, self.train, self.known, method), dim=1)
        spread_C = (train_ND @ vectors_CD.T).std(0).clamp_min(1e-12)
        return (test_ND - test_ND.mean(0)) @ vectors_CD.T / spread_C

    def accuracy(self, score_NC: Tensor) -> float:
        picked = score_NC.argmax(1).tolist()
        return mean([self.known[picked[n]] == self.test[n].concept for n in self.asked])

    def told(self, score_NC: Tensor) -> dict[str, tuple[int, int]]:
        """By concept, how many of its texts are told rightly, and of how many."""
        picked, concepts = score_NC.argmax(1).tolist(), [self.test[n].concept for n in self.asked]
        right = Counter(self.test[n].concept for n in self.asked if self.known[picked[n]] == self.test[n].concept)
        return {name: (right[name], concepts.count(name)) for name in sorted(set(concepts))}


def _tokens(text: Text) -> list[str]:
    return [word.lower() for word in _WORD.findall(text.text)]


def _bags(train: Sequence[Text], test: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """Texts as tf-idf of their words, of unit length, [N, V] float64; words that no learned text has are left out."""
    counts = [Counter(_tokens(one)) for one in train]
    documents = Counter(word for one in counts for word in one)
    order = {word: place for place, word in enumerate(sorted(documents))}
    idf = {word: math.log((1 + len(train)) / (1 + n)) + 1 for word, n in documents.items()}

    def bag(one: Mapping[str, int]) -> Tensor:
        row = torch.zeros(len(order), dtype=torch.float64)
        for word, n in one.items():
            if word in order:
                row[order[word]] = (1 + math.log(n)) * idf[word]
        return row

    matrices = [torch.stack([bag(one) for one in some]) for some in (counts, [Counter(_tokens(one)) for one in test])]
    return normalize(matrices[0], dim=1), normalize(matrices[1], dim=1)


def _bayes(train: Sequence[Text], test: Sequence[Text], known: Sequence[str]) -> Tensor:
    """Log-likelihoods [N, C] of multinomial naive Bayes, add-one, with equal priors."""
    vocabulary = {word for one in train for word in _tokens(one)}
    counts = {name: Counter(word for one in train if one.concept == name for word in _tokens(one)) for name in known}
    totals = {name: some.total() + len(vocabulary) for name, some in counts.items()}
    said = [[word for word in _tokens(one) if word in vocabulary] for one in test]
    rows = [[sum(math.log((counts[name][w] + 1) / totals[name]) for w in words) for name in known] for words in said]
    return torch.tensor(rows, dtype=torch.float64)


def best_layer(splits: Sequence[Split], layers: Sequence[int]) -> int:
    """The layer that tells most held-out texts rightly, of equal ones the one nearest to the middle."""
    middle = layers[len(layers) // 2]
    right = {layer: sum(one.n * one.by_layer[layer] for one in splits) for layer in layers}
    return max(layers, key=lambda layer: (round(right[layer], 9), -abs(layer - middle)))


class _Shown:
    """The concepts' figures at one layer."""

    def __init__(
        self,
        read: Read,
        layer: int,
        texts: Sequence[Text],
        concepts: Sequence[str],
        vectors_CD: Tensor,
        columns_FD: Tensor | None,
        splits: Sequence[Split],
        draw: random.Random,
    ) -> None:
        self.splits = splits
        self.read, self.texts, self.concepts, self.draw = read, texts, concepts, draw
        self.residual_ND = read.by_layer[layer].double()
        self.vectors_CD = normalize(vectors_CD, dim=1)
        self.means_CD = own_means(self.residual_ND, texts, concepts)
        self.cosines_CC = centred_cosines(self.means_CD)
        self.neurons = None if columns_FD is None else normalize(columns_FD.double(), dim=1)
        self.explained = redundancies(self.means_CD)
        self.by_chance = self._redundancy_by_chance()
        self.neuron_by_chance = None if columns_FD is None else _best_of_random(columns_FD, draw.randrange(2**31))

    def concept(self, place: int) -> Concept:
        name = self.concepts[place]
        own = [n for n, one in enumerate(self.texts) if one.concept == name]
        share, chance = self._shares(own)
        cosines = self._cosines(place, own)
        neuron, neuron_place = self._neuron(place)
        heads, heads_share = self._heads(place)
        redundancy, weights = self.explained[place] if self.explained else (None, {})
        others = sorted(
            (n for n in range(len(self.concepts)) if n != place), key=lambda n: -abs(float(self.cosines_CC[place, n]))
        )
        return Concept(
            name=name,
            n=len(own),
            share=share,
            share_by_chance=chance,
            cosines=cosines,
            worst=sorted(cosines, key=lambda where: cosines[where])[:WORST],
            neuron=neuron,
            neuron_place=neuron_place,
            neuron_by_chance=self.neuron_by_chance,
            nearest=[(self.concepts[n], float(self.cosines_CC[place, n])) for n in others[:NEAREST]],
            redundancy=redundancy,
            redundancy_by_chance=self.by_chance,
            explained_by=[
                (self.concepts[n], weights[n]) for n in sorted(weights, key=lambda n: -abs(weights[n]))[:NEAREST]
            ],
            heads=heads,
            heads_share=heads_share,
            told=_told(name, self.splits),
            verdict="",
        )

    def _shares(self, own: Sequence[int]) -> tuple[float | None, float | None]:
        if len(own) < 2:
            return None, None
        everybody = range(len(self.texts))
        drawn = [first_share(self.residual_ND[self.draw.sample(everybody, len(own))]) for _ in range(DRAWS // 10)]
        return first_share(self.residual_ND[list(own)]), median(drawn)

    def _cosines(self, place: int, own: Sequence[int]) -> dict[str, float]:
        """Of each text, with the vector of the others: its own part in the vector would praise it."""
        found = {}
        for n in own:
            rest = [other for other in range(len(self.texts)) if other != n]
            others = [self.texts[other] for other in rest]
            here = [
                k
                for k, one in enumerate(others)
                if one.setting == self.texts[n].setting and one.concept != self.concepts[place]
            ]
            weights_N = contrasts_of(others, [self.concepts[place]])[0]
            if not here or not weights_N.any():
                continue
            rest_ND = self.residual_ND[rest]
            difference_D, vector_D = self.residual_ND[n] - rest_ND[here].mean(0), weights_N @ rest_ND
            found[self.texts[n].where] = float(torch.cosine_similarity(difference_D, vector_D, dim=0))
        return found

    def _neuron(self, place: int) -> tuple[float | None, int | None]:
        if self.neurons is None:
            return None, None
        cosine_F = (self.neurons @ self.vectors_CD[place]).abs()
        return float(cosine_F.max()), int(cosine_F.argmax())

    def _heads(self, place: int) -> tuple[list[tuple[int, int, float, float]], float | None]:
        """The heads of all read layers, in the order of the norms of their mean differences."""
        found = []
        weights_N = contrasts_of(self.texts, self.concepts)[place]
        for layer, mixed_NHd in self.read.heads.items():
            difference_Hd = torch.einsum("n,nhd->hd", weights_N, mixed_NHd.double())
            negatives_NHd = mixed_NHd.double()[weights_N < 0]
            spread_H = (negatives_NHd - negatives_NHd.mean(0)).square().sum(-1).mean(0).sqrt().clamp_min(1e-12)
            norms = difference_Hd.norm(dim=-1)
            found += [(layer, head, float(norm), float(norm / spread_H[head])) for head, norm in enumerate(norms)]
        found.sort(key=lambda one: -one[2])
        total = sum(one[2] for one in found)
        share = sum(one[2] for one in found[:HEADS]) / total if len(found) > HEADS and total else None
        return found[:HEADS], share

    def _redundancy_by_chance(self) -> float | None:
        if not self.explained:
            return None
        drawn = []
        for _ in range(DRAWS // 10):
            mixed = permuted(self.texts, self.draw)
            drawn += [one[0] for one in redundancies(own_means(self.residual_ND, mixed, self.concepts))]
        return float(torch.tensor(drawn).quantile(0.95))


def own_means(residual_ND: Tensor, texts: Sequence[Text], concepts: Sequence[str]) -> Tensor:
    """Own mean less the baselines' of the same settings, [C, D] float64; less that of all others where there are fewer
    than five baselines.

    Against all others the vectors of *independent* concepts explain each other almost wholly, because they sum up to
    nothing.
    """
    bare = [n for n, one in enumerate(texts) if not one.concept]
    if len(bare) < FEWEST:
        return contrasts_of(texts, concepts) @ residual_ND.double()
    rows = []
    for concept in concepts:
        kept = [n for n, one in enumerate(texts) if one.concept in ("", concept)]
        weights_N = contrasts_of([texts[n] for n in kept], [concept])[0]
        if not weights_N.any():  # No baseline stands in any of its settings.
            own = [n for n in kept if texts[n].concept]
            rows.append(residual_ND[own].double().mean(0) - residual_ND[bare].double().mean(0))
            continue
        rows.append(weights_N @ residual_ND[kept].double())
    return torch.stack(rows)


def permuted(texts: Sequence[Text], draw: random.Random) -> list[Text]:
    """Texts that change their concepts within their setting; baselines stay."""
    found = list(texts)
    for setting in sorted({one.setting for one in texts}):
        places = [n for n, one in enumerate(texts) if one.setting == setting and one.concept]
        names = [texts[n].concept for n in places]
        draw.shuffle(names)
        for n, name in zip(places, names, strict=True):
            found[n] = texts[n]._replace(concept=name)
    return found


def centred_cosines(vectors_CD: Tensor) -> Tensor:
    """Cosines [C, C] of vectors less their common mean, which would make all of them alike."""
    around_CD = normalize(vectors_CD.double() - vectors_CD.double().mean(0), dim=1)
    return around_CD @ around_CD.T


def first_share(residual_ND: Tensor) -> float:
    """Share of the variance of N points along their first principal component; 1 where there is none at all."""
    spread = torch.linalg.svdvals(residual_ND.double() - residual_ND.double().mean(0)).square()
    return float(spread[0] / spread.sum()) if spread.sum() > 0 else 1.0


def redundancies(vectors_CD: Tensor, penalty: float = RIDGE) -> list[tuple[float, dict[int, float]]]:
    """By ridge regression of each vector, at unit length, on the others: the share of it that they explain, and their
    weights by place. Empty with fewer than three."""
    unit_CD = normalize(vectors_CD.double(), dim=1)
    gram_CC, found = unit_CD @ unit_CD.T, []
    for place in range(len(unit_CD) if len(unit_CD) > 2 else 0):
        others = [n for n in range(len(unit_CD)) if n != place]
        inner = gram_CC[others][:, others] + penalty * torch.eye(len(others), dtype=torch.float64)
        weights = torch.linalg.solve(inner, gram_CC[others, place])
        left_D = unit_CD[place] - weights @ unit_CD[others]
        found.append((1 - float(left_D.square().sum()), dict(zip(others, weights.tolist(), strict=True))))
    return found


def _best_of_random(columns_FD: Tensor, seed: int) -> float:
    """The largest |cosine| of one random direction with these columns."""
    direction_D = torch.randn(columns_FD.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return float((normalize(columns_FD.double(), dim=1) @ normalize(direction_D, dim=0)).abs().max())


def _beyond(value: float | None, limit: float, chance: float | None) -> bool:
    return value is not None and value > limit and value > (chance or 0.0)


def _told(name: str, splits: Sequence[Split]) -> float | None:
    right, n = (sum(one.told.get(name, (0, 0))[part] for one in splits) for part in (0, 1))
    return right / n if n else None


def _with_verdict(one: Concept, chance: float) -> Concept:
    if one.n < FEWEST:
        return one
    said = ["clean"] if _beyond(one.share, CLEAN, one.share_by_chance) else []
    said += ["not told"] if one.told is not None and one.told <= chance else []
    if one.share is not None and one.share < min(FRAGMENTED, one.share_by_chance or FRAGMENTED):
        said.append("fragmented")
    said += ["one neuron"] if _beyond(one.neuron, ONE_NEURON, one.neuron_by_chance) else []
    said += ["redundant"] if _beyond(one.redundancy, REDUNDANT, one.redundancy_by_chance) else []
    said += ["few heads"] if _beyond(one.heads_share, SPARSE, None) else []
    return replace(one, verdict=", ".join(said) or "mixed")


def _clusterings(
    by_layer: Mapping[int, Tensor],
    texts: Sequence[Text],
    concepts: Sequence[str],
    families: Mapping[str, Sequence[str]],
    draw: random.Random,
) -> list[Clustering]:
    """Layer by layer; nothing where no family has two concepts, or there is only one family."""
    family_of = {name: family for family, names in families.items() for name in names}
    named = [n for n, name in enumerate(concepts) if name in family_of]
    labels = [family_of[concepts[n]] for n in named]
    if max(Counter(labels).values(), default=0) < 2 or len(set(labels)) < 2:
        return []
    orders = [draw.sample(labels, len(labels)) for _ in range(DRAWS)]
    found = []
    for layer, residual_ND in by_layer.items():
        cosines_CC = centred_cosines(own_means(residual_ND, texts, concepts))[named][:, named]
        gap = family_gap(cosines_CC, labels)
        as_far = sum(family_gap(cosines_CC, order) >= gap - 1e-12 for order in orders)
        found.append(Clustering(layer, gap, (1 + as_far) / (1 + DRAWS)))
    return found


def family_gap(cosines_CC: Tensor, labels: Sequence[str]) -> float:
    """Mean cosine of two concepts of one family less that of two of different ones."""
    same = torch.tensor([[a == b for b in labels] for a in labels])
    others = ~torch.eye(len(labels), dtype=torch.bool)
    return float(cosines_CC[same & others].mean() - cosines_CC[~same].mean())
