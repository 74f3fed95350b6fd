"""How the student's attention heads are doing: a tracker beside the training, which reads and changes nothing.

Of each head it keeps two figures, as averages over the steps (EMA, bias-corrected, so the first step already counts in
full): its dominance, the mean norm of its output over sqrt(d), and its precision, the mean square of its output over
the part of it that varies from token to token. A head that says much the same to every token is precise, a stabiliser;
one whose output varies is an explorer. The hazard of a layer is its share of explorers, scaled by how long it was
watched and by how precise its heads are.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from ladder.errors import RunError
from ladder.manifest import Capacity
from ladder.train.ranks import Ranks

OUTPUTS = re.compile(r"\.(\d+)\.(?:self_attn|attn|attention|self_attention)\.(?:o_proj|c_proj|out_proj|dense)$")
"""The projection behind the heads of a layer: what enters it is their outputs, side by side."""
WARM = 5
"""Steps after which a layer's hazard counts in full."""
_FLOOR = 1e-6


class HeadTracker:
    """Dominance and precision of every head, [L, H].

    Args:
        model: the student. Outputs are read while it trains, at every position, padding included, as long as it
            lives. A single position varies by nothing, which says nothing of a head, and is passed over.

    Raises:
        RunError: its attention is not found.
    """

    def __init__(self, model: PreTrainedModel, settings: Capacity) -> None:
        config = model.config.get_text_config()
        self.settings, self.heads = settings, int(config.num_attention_heads)
        found = [(int(match[1]), module) for name, module in model.named_modules() if (match := OUTPUTS.search(name))]
        if not found:
            raise RunError(
                f"the attention heads of {type(model).__name__} were not found",
                where="training_params.capacity",
                remedy="leave it out",
            )
        self.layers, self.device = len(found), model.device
        self.seen: list[list[Tensor]] = [[] for _ in found]
        self.average = torch.zeros(2, self.layers, self.heads)
        """Not yet corrected for how it began."""
        self.updates = 0
        hooks = [
            module.register_forward_pre_hook(self._reader(place))
            for place, (_, module) in enumerate(sorted(found, key=lambda one: one[0]))
        ]
        # The base may be shared and outlive this training, however that ends.
        weakref.finalize(self, _remove, hooks).atexit = False

    def _reader(self, layer: int) -> Any:
        # A hook that held the tracker would keep it alive.
        told = weakref.ref(self)

        def read(module: nn.Module, given: tuple[Any, ...]) -> None:
            tracker = told()
            # Of several ranks one may have an empty part of a step.
            if tracker is not None and module.training and given[0].shape[:-1].numel() > 1:
                tracker.seen[layer].append(figures(given[0].detach(), tracker.heads))

        return read

    def update(self, ranks: Ranks) -> dict[str, float]:
        """Take in what the heads did in a step, on all ranks; returns figures for its report once there are any."""
        passes = max(map(len, self.seen))
        nothing = torch.zeros(2, self.layers, self.heads, device=self.device)
        sums = torch.stack([torch.stack(one).sum(0) for one in self.seen], 1) if passes else nothing
        now, count = ranks.sum(sums).cpu(), ranks.sum(torch.tensor(float(passes), device=self.device)).item()
        self.seen = [[] for _ in self.seen]
        if count:
            decay, self.updates = self.settings.decay, self.updates + 1
            self.average = decay * self.average + (1 - decay) * (now / count)
        if not self.updates:
            return {}
        hazard_L = self.hazard()
        found = {
            "hazard": hazard_L.mean().item(),
            "explorers": self.explorers().double().mean().item(),
            "dominance": self.corrected()[0].mean().item(),
            "precision": self.corrected()[1].mean().item(),
        }
        return found | {f"hazard.{layer}": value for layer, value in enumerate(hazard_L.tolist())}

    def corrected(self) -> Tensor:
        """Dominance and precision, [2, L, H]; the mean of one step is that step's."""
        return self.average / (1 - self.settings.decay ** max(1, self.updates))

    def explorers(self) -> Tensor:
        """bool [L, H]."""
        return self.corrected()[1] <= self.settings.stabiliser

    def hazard(self) -> Tensor:
        """Of each layer [L], 0 to 1."""
        precision_L = self.corrected()[1].mean(-1)
        known = min(1.0, self.updates / WARM)
        return self.explorers().float().mean(-1) * known * (precision_L / self.settings.stabiliser).clamp(max=1.0)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"average": self.average, "updates": torch.tensor(self.updates)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.average, self.updates = state["average"].clone(), int(state["updates"])


def _remove(hooks: list[RemovableHandle]) -> None:
    for hook in hooks:
        hook.remove()


def figures(outputs: Tensor, heads: int) -> Tensor:
    """Dominance and precision of heads, [2, H], from their outputs side by side, [..., H d]."""
    told_nHd = outputs.reshape(-1, heads, outputs.shape[-1] // heads).float()
    square_H, constant_H = told_nHd.square().sum(-1).mean(0), told_nHd.mean(0).square().sum(-1)
    varying_H = (square_H - constant_H).clamp_min(_FLOOR * square_H).clamp_min(_FLOOR**2)
    return torch.stack([told_nHd.norm(dim=-1).mean(0) / told_nHd.shape[-1] ** 0.5, square_H / varying_H])
