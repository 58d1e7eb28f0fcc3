"""The conditioning of a picture by its prompt: states of the text encoders, and in XL a vector of the whole text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.diffusion.network import Network
from engines.diffusion.tokens import ClipTokens
from engines.part import Array, Tick
from schemas.errors import ModelError, PipelineError

_HIDDEN = re.compile(r"hidden_states[._](\d+)")
LAST_STATES = "last_hidden_state"
SKIPPED = "rigflow_states"  # outputs `rigflow_states.K`, those without the last K layers: `engines.models.clip_layers`
MOST_SKIPPED = 12
_WHOLE = ("text_embeds", "pooler_output")


@dataclass(frozen=True, slots=True)
class Conditioning:
    """`states [1, 77, width]` float32; `whole [1, width]` of XL, None of others. `cut`: the text was longer."""

    states: Array
    whole: Array | None
    cut: bool

    def zeros(self) -> "Conditioning":
        """The same shapes, without a text."""
        return Conditioning(
            np.zeros_like(self.states), None if self.whole is None else np.zeros_like(self.whole), False
        )


class Encoders:
    """One text encoder, or the two of XL, whose states stand side by side."""

    def __init__(self, encoders: Sequence[tuple[ClipTokens, Network]]) -> None:
        self._encoders = encoders

    @property
    def networks(self) -> list[Network]:
        """The networks."""
        return [network for _, network in self._encoders]

    def conditioning(self, text: str, clip_skip: int, tick: Tick) -> Conditioning:
        """Return the conditioning by a text, without the last `clip_skip` layers. Raises ModelError, PipelineError."""
        states, cut = [], False
        whole: Array | None = None
        for tokens, network in self._encoders:
            ids, longer = tokens.ids(text)
            names = [self._states_of(network, clip_skip)]
            if len(self._encoders) > 1:
                names += [name for name in _WHOLE if name in network.outputs][:1]
            feed = {name: ids if name == "input_ids" else np.ones_like(ids) for name in network.inputs}
            found = network.run(feed, names, tick)
            states.append(found[0])
            whole = found[1] if len(found) > 1 else whole
            cut |= longer
        if len(self._encoders) > 1 and (whole is None or whole.ndim != 2):
            raise ModelError(f"model {self._encoders[-1][1].name} has no output text_embeds", "export it again")
        return Conditioning(np.concatenate(states, axis=-1), whole, cut)

    def _states_of(self, network: Network, clip_skip: int) -> str:
        """The output that is used: the last states, and in XL those of the last layer but one, without a norm."""
        if len(self._encoders) == 1:
            return self._normed_states_of(network, clip_skip)
        hidden = {int(found[1]): name for name in network.outputs if (found := _HIDDEN.fullmatch(name))}
        last = max(hidden, default=-1)  # that of the last layer
        if last - 1 - clip_skip not in hidden:
            what = f"model {network.name} has no output of the layer {2 + clip_skip} from its end"
            raise ModelError(what, "export it with hidden_states" if last < 0 else "lower clip_skip")
        return hidden[last - 1 - clip_skip]

    def _normed_states_of(self, network: Network, clip_skip: int) -> str:
        """The output of one encoder alone. Raises PipelineError."""
        if not clip_skip:
            return LAST_STATES if LAST_STATES in network.outputs else next(iter(network.outputs))
        wanted = f"{SKIPPED}.{clip_skip}"
        if wanted not in network.outputs:
            most = sum(name.startswith(f"{SKIPPED}.") for name in network.outputs)
            can = f"can leave out {most or 'none'} of its last layers"
            what = f"model {network.name} {can}, and clip_skip is {clip_skip}"
            hint = "lower clip_skip" if most else "leave it out, or export the model again by optimum and add it"
            raise PipelineError(what, hint)
        return wanted
