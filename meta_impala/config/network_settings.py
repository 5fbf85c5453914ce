"""Settings of the network."""

from __future__ import annotations

import dataclasses
import itertools

from meta_impala.config.fields import IMPALA, NEVER, OURS, setting


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Torso, core and inputs of the network (e_η has `EtaEmbeddingSettings`)."""

    network: str = setting(
        "auto",
        "Torso: shallow (2 convolutions), nature (3), deep (residual), minatar (1 convolution of "
        "16 3×3 filters), mlp; auto chooses shallow for 84×84 images, minatar for several planes "
        "with sides from 5 to 20, and mlp otherwise. module:Class: a torso of your own, a "
        "subclass of meta_impala.networks.torsos.Torso.",
        source=IMPALA + "; Mnih et al. 2015; minatar: Young and Tian 2019",
        choices=("auto", "shallow", "nature", "deep", "minatar", "mlp"),
        or_module=True,
        on_resume=NEVER,
        also_called=("torso", "model", "arch"),
    )
    mlp_sizes: str = setting(
        "64,64",
        "Widths of the hidden layers of the mlp torso.",
        unit="units, comma-separated",
        source=OURS,
        on_resume=NEVER,
        also_called=("hidden_sizes", "hidden_size"),
    )
    image_scaling: str = setting(
        "unit",
        "How images of bytes become the network's input. unit: divided by 255. background (Atari "
        "only): minus the game's mean picture under random play, divided by the standard deviation "
        "from it; what never changes no longer hides what does, so learning takes fewer frames. "
        "Not with a torso of your own.",
        value_if_missing="unit",
        source="unit: " + IMPALA + " (released code); background: after Burda et al. 2018 (RND)",
        choices=("unit", "background"),
        on_resume=NEVER,
        also_called=("normalize_input", "normalize_images", "obs_normalization"),
    )
    core: str = setting(
        "none",
        "Recurrent core.",
        source=IMPALA,
        choices=("none", "lstm"),
        on_resume=NEVER,
        also_called=("use_lstm", "lstm"),
    )
    core_size: int = setting(
        256, "Width of the LSTM.", unit="units", source=IMPALA, low=1, high=8192, on_resume=NEVER
    )
    auxiliary_heads: int = setting(
        0,
        "Policy and value heads besides the one that acts, each trained by a J with an η of its "
        "own. Only the first acts and is evaluated by J'. Not with an embedding of η.",
        value_if_missing=0,
        source="Zahavy et al. 2020 (STACX), arXiv 2002.12928, has 2",
        low=0,
        high=64,
        on_resume=NEVER,
    )
    last_action_and_reward: bool = setting(
        False,
        "Whether the last action and the last clipped reward are inputs of the network "
        "(--eta_embedding_place says where).",
        source=IMPALA + " (DMLab agents)",
        on_resume=NEVER,
    )

    @property
    def mlp_widths(self) -> tuple[int, ...]:
        """`mlp_sizes` as numbers. Raises ValueError if they are not."""
        return tuple(int(width) for width in self.mlp_sizes.split(","))

    def least_weights(self, observation_size: int) -> int:
        """A lower bound of the number of weights, known before a network is made.

        Args:
          observation_size: numbers in an observation.
        """
        widths = [observation_size, *self.mlp_widths] if self.network == "mlp" else []
        least = sum(a * b for a, b in itertools.pairwise(widths))
        if self.core == "lstm":
            least += 4 * self.core_size * (self.core_size + (widths or [1])[-1])
        return least
