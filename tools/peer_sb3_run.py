"""Trains stable-baselines3 on an Atari game; run by `peer_time_to_score.py` in its environment.

    python peer_sb3_run.py a2c Pong 1

Settings are those of "atari" in rl-baselines3-zoo (hyperparams/a2c.yml and ppo.yml, 2025): the
library's own Atari wrappers, a stack of 4 frames, 10M agent steps, the zoo's default vectorisation
(in one process). Prints a line "POINT frames games mean-return-of-100" now and then.
"""

import sys
from collections.abc import Callable

import ale_py
import gymnasium
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import VecFrameStack

_AGENT_STEPS = 10_000_000
_ACTION_REPEAT = 4
_STEPS_BETWEEN_POINTS = 5_000


class _Points(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self._next, self._games = 0, 0

    def _on_step(self) -> bool:
        self._games += sum("episode" in info for info in self.locals["infos"])
        if self.num_timesteps >= self._next and self.model.ep_info_buffer:
            returns = [game["r"] for game in self.model.ep_info_buffer]
            mean = sum(returns) / len(returns)
            print("POINT", self.num_timesteps * _ACTION_REPEAT, self._games, mean, flush=True)
            self._next = self.num_timesteps + _STEPS_BETWEEN_POINTS
        return True


def _linear(start: float) -> Callable[[float], float]:
    return lambda remaining: remaining * start


def main() -> None:
    algorithm, game, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    gymnasium.register_envs(ale_py)
    count = {"a2c": 16, "ppo": 8}[algorithm]
    environments = make_atari_env(f"{game}NoFrameskip-v4", n_envs=count, seed=seed)
    environments = VecFrameStack(environments, n_stack=4)
    if algorithm == "a2c":
        model = A2C(
            "CnnPolicy",
            environments,
            ent_coef=0.01,
            vf_coef=0.25,
            policy_kwargs={
                "optimizer_class": RMSpropTFLike,
                "optimizer_kwargs": {"eps": 1e-5},
            },
            seed=seed,
        )
    else:
        model = PPO(
            "CnnPolicy",
            environments,
            n_steps=128,
            n_epochs=4,
            batch_size=256,
            learning_rate=_linear(2.5e-4),
            clip_range=_linear(0.1),
            vf_coef=0.5,
            ent_coef=0.01,
            seed=seed,
        )
    model.learn(_AGENT_STEPS, callback=_Points())


if __name__ == "__main__":
    main()
