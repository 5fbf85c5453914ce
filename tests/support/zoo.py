"""Small environments, right and wrong ones, registered as `zoo/<class>-v0` by `register()`.

Each differs from `Base` in one thing. Those of `RIGHT` must be usable; for those of `WRONG` the
table
says what the one line has to name: where the error is, and how to fix it.
"""

import signal
import sqlite3
import sys

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

RIGHT: dict[str, type] = {}
unique = 0
WRONG: dict[str, tuple[str, ...]] = {}
_CLASSES: dict[str, tuple[type, dict]] = {}


class Base(gymnasium.Env):
    """Ten steps; the observation is a tenth of their number; the reward is the action."""

    observation_space = Box(-1, 1, (3,), np.float32)
    action_space = Discrete(2)

    def __init__(self):
        self.t = 0

    def obs(self):
        return np.full(3, self.t / 10, np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.obs(), {}

    def step(self, action):
        self.t += 1
        return self.obs(), float(action), self.t >= 10, False, {}


def right(cls=None, **kwargs):
    if cls is None:
        return lambda cls: right(cls, **kwargs)
    RIGHT[cls.__name__] = cls
    _CLASSES[cls.__name__] = (cls, kwargs)
    return cls


def wrong(*words, **kwargs):
    def decorate(cls):
        WRONG[cls.__name__] = words
        _CLASSES[cls.__name__] = (cls, kwargs)
        return cls

    return decorate


def register():
    """Registers all; again if somebody removed them."""
    for name, (cls, kwargs) in _CLASSES.items():
        gymnasium.registry.pop(f"zoo/{name}-v0", None)
        gymnasium.register(f"zoo/{name}-v0", entry_point=cls, **kwargs)


# Right.


@right
class Plain(Base):
    """Its constructor takes nothing, not even a render mode."""


@right(max_episode_steps=5)
class InPlace(Base):
    """Writes every observation into one array, and ends by its time limit only."""

    dtype = np.float32

    def __init__(self):
        super().__init__()
        self.buffer = np.zeros(3, self.dtype)

    def obs(self):
        self.buffer[:] = self.t / 10
        return self.buffer

    def step(self, action):
        return (*super().step(action)[:2], False, False, {})


@right(max_episode_steps=5)
class InPlaceFloat64(InPlace):
    dtype = np.float64
    observation_space = Box(-1, 1, (3,), np.float64)


@right(max_episode_steps=5)
class InPlaceUint8(InPlace):
    dtype = np.uint8
    observation_space = Box(0, 255, (3,), np.uint8)

    def obs(self):
        self.buffer[:] = self.t
        return self.buffer


class _Info(Base):
    def info(self):
        return {}

    def reset(self, seed=None, options=None):
        return super().reset(seed=seed)[0], self.info()

    def step(self, action):
        return (*super().step(action)[:4], self.info())


for _name, _infos in {
    "InfoOfShapes": lambda t: {"path": np.zeros(2 + t % 3)},
    "InfoOfTypes": lambda t: {"why": 0 if t % 2 else "crash"},
    "InfoOfDicts": lambda t: {"goal": {} if t % 2 else None},
    "InfoNone": lambda t: None,
    "InfoWithOddKeys": lambda t: {0: 1, ("a", "b"): 2},
    "InfoText": lambda t: "nothing",
    "InfoWithFinalObs": lambda t: {"final_obs": t, "final_info": 7, "_final_obs": None},
}.items():
    right(type(_name, (_Info,), {"info": lambda self, make=_infos: make(self.t)}))


def _convert(name, convert, **attributes):
    """An environment whose results of `step` are `convert(observation, reward, end, cut)`."""

    def step(self, action):
        return (*convert(*Base.step(self, action)[:4]), {})

    return right(type(name, (Base,), {"step": step, **attributes}))


_convert("RewardOfShape1", lambda o, r, e, c: (o, np.array([r]), e, c))
_convert("RewardOfInt", lambda o, r, e, c: (o, int(r), e, c))
_convert("RewardOfFloat32", lambda o, r, e, c: (o, np.float32(r), np.bool_(e), np.array(c)))
_convert("RewardOfBool", lambda o, r, e, c: (o, bool(r), int(e), 0))
_convert("RewardOfRank0", lambda o, r, e, c: (o, np.array(r), np.array([e]), c))
_convert("ListObservation", lambda o, r, e, c: (o.tolist(), r, e, c))
_convert("TupleObservation", lambda o, r, e, c: (tuple(o.tolist()), r, e, c))
_convert("Float64InFloat32", lambda o, r, e, c: (o.astype(np.float64), r, e, c))
_convert("IntInFloat32", lambda o, r, e, c: ((10 * o).astype(np.int64), r, e, c))
_convert("OutOfBox", lambda o, r, e, c: (np.full(3, 1e30, np.float32), r, e, c))
_convert("EndsAtOnce", lambda o, r, e, c: (o, r, True, True))


@right
class ScalarObservation(Base):
    observation_space = Box(-1, 1, (), np.float32)

    def obs(self):
        return np.float32(self.t / 10)


@right
class FloatObservation(ScalarObservation):
    def obs(self):
        return self.t / 10


@right
class BoolPlanes(Base):
    observation_space = Box(0, 1, (10, 10, 4), np.bool_)

    def obs(self):
        return np.ones((10, 10, 4), bool)


@right
class IntInUint8(Base):
    observation_space = Box(0, 255, (3,), np.uint8)

    def obs(self):
        return [self.t, 0, 255]


@right
class OneAction(Base):
    action_space = Discrete(1)


class _Strict(Base):
    def step(self, action):
        assert self.action_space.contains(action), f"bad action {action!r}"
        assert isinstance(action, int | np.integer)
        {int(self.action_space.start) + i: i for i in range(self.action_space.n)}[action]
        return super().step(action)


@right
class StrictActions(_Strict):
    pass


@right
class ActionsFromMinusOne(_Strict):
    action_space = Discrete(3, start=-1)


@right
class ActionsOfInt8(_Strict):
    action_space = Discrete(3, start=5, dtype=np.int8)


@right
class Prints(Base):
    def reset(self, seed=None, options=None):
        print("episode over")
        return super().reset(seed=seed)


@right
class CloseFails(Base):
    def close(self):
        raise AttributeError("no attribute 'viewer'")


@right
class CloseExits(Base):
    def close(self):
        sys.exit("bye")


# Flattened.


@right
class DiscreteObservation(Base):
    observation_space = Discrete(5)

    def obs(self):
        return self.t % 5


@right
class DictObservation(Base):
    observation_space = Dict(a=Box(-1, 1, (2, 2), np.float32), b=Discrete(3, start=1))

    def obs(self):
        return {"a": np.full((2, 2), self.t / 10, np.float32), "b": 1 + self.t % 3}


@right
class DictOfDictsObservation(Base):
    observation_space = Dict(a=Dict(b=Box(0, 1, (2,), np.float64)), c=MultiBinary(2))

    def obs(self):
        return {"a": {"b": np.full(2, self.t / 10)}, "c": np.ones(2, np.int8)}


@right
class TupleOfBoxes(Base):
    observation_space = Tuple((Box(-1, 1, (2,), np.float32), Box(0, 255, (1, 3), np.uint8)))

    def obs(self):
        return np.full(2, self.t / 10, np.float32), np.full((1, 3), self.t, np.uint8)


@right
class DictWithText(Base):
    observation_space = Dict(
        image=Box(0, 10, (2, 2, 3), np.uint8), direction=Discrete(4), mission=Text(20)
    )

    def obs(self):
        return {"image": np.full((2, 2, 3), self.t, np.uint8), "direction": 3, "mission": "go"}


@right(kwargs={"config": {"size": 3}})
class NeedsConfig(Base):
    def __init__(self, config):
        super().__init__()
        assert config["size"] == 3


# Wrong.


@wrong("reset()", "one ndarray", "(observation, info)", "shimmy", "register")
class OldReset(Base):
    def reset(self, seed=None, options=None):
        return super().reset(seed=seed)[0]


@wrong("reset()", "one ndarray", "(observation, info)")
class OldResetOfTwo(Base):
    """Its observation could be taken for a pair."""

    observation_space = Box(-1, 1, (2,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32)


@wrong("reset()", "seed=None", max_episode_steps=5)
class OldResetWithoutSeed(Base):
    def reset(self):
        self.t = 0
        return self.obs(), {}


@wrong("reset()", "options=None")
class ResetWithoutOptions(Base):
    """Gymnasium's own wrappers pass options, set or not."""

    def reset(self, *, seed=None):
        return super().reset(seed=seed)


class _OldStep(Base):
    def step(self, action):
        observation, reward, end, _, info = super().step(action)
        return observation, reward, end, info


@wrong("step()", "4 values", "terminated", "shimmy")
class OldStep(_OldStep):
    pass


@wrong("step()", "4 values", "terminated", "shimmy", max_episode_steps=5)
class OldStepWithTimeLimit(_OldStep):
    pass


@wrong("step()", "4 values", "terminated", "shimmy")
class OldStepFlattened(DictObservation, _OldStep):
    pass


@wrong("step()", "one NoneType", "truncated")
class StepReturnsNothing(Base):
    def step(self, action):
        return None


@wrong("reset()", "one NoneType", "(observation, info)")
class ResetReturnsNothing(Base):
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)


@wrong("(4,)", "(3,)", "observation_space", "ReshapeObservation")
class WrongShape(Base):
    def obs(self):
        return np.zeros(4, np.float32)


@wrong("(3, 1)", "(1, 3)", "observation_space")
class WrongShapeThatCouldBeReshaped(Base):
    observation_space = Box(-1, 1, (1, 3), np.float32)

    def obs(self):
        return np.zeros((3, 1), np.float32)


@wrong("()", "(3,)", "observation_space")
class ScalarForArray(Base):
    """NumPy would copy the number into all three."""

    def obs(self):
        return 0.5


@wrong("step()", "(2,)", "(3,)")
class WrongShapeLater(Base):
    def obs(self):
        return np.zeros(2 if self.t == 4 else 3, np.float32)


@wrong("observation", "array")
class RaggedObservation(Base):
    def obs(self):
        return [[1.0], [2.0, 3.0]]


@wrong("NoneType", "observation")
class NoObservation(Base):
    def obs(self):
        return None


@wrong("float32", "uint8", "DtypeObservation")
class FractionsInUint8(Base):
    observation_space = Box(0, 255, (84, 84, 4), np.uint8)

    def obs(self):
        return np.full((84, 84, 4), 0.5, np.float32)


@wrong("int64", "uint8")
class NegativeInUint8(Base):
    observation_space = Box(0, 255, (3,), np.uint8)

    def obs(self):
        return [-1, 0, 1]


@wrong("dtype", "observation")
class TextObservation(Base):
    def obs(self):
        return np.array(["a", "b", "c"])


@wrong("observation", "not finite", "step 7")
class NanObservation(Base):
    def obs(self):
        return np.full(3, np.nan if self.t == 7 else 0, np.float32)


@wrong("observation", "not finite", "reset()")
class InfiniteObservation(Base):
    def obs(self):
        return np.array([0, 0, np.inf], np.float32)


class _Reward(Base):
    reward: object = None

    def step(self, action):
        result = super().step(action)
        return (result[0], self.reward if self.t == 7 else 0.0, *result[2:])


for _name, _reward, _words in (
    ("NanReward", float("nan"), ("reward", "step 7", "not finite")),
    ("HugeReward", 1e300, ("reward", "step 7", "float32")),
    ("RewardOfTwo", np.zeros(2), ("step()", "reward", "one number")),
    ("RewardText", "much", ("step()", "reward", "'much'")),
    ("RewardNone", None, ("step()", "reward", "None")),
):
    wrong(*_words)(type(_name, (_Reward,), {"reward": _reward}))


@wrong("terminated", "None", "True or False")
class EndOfNone(Base):
    def step(self, action):
        observation, reward, *_ = super().step(action)
        return observation, reward, None, False, {}


@wrong("no observation_space")
class NoSpaces(gymnasium.Env):
    action_space = Discrete(2)

    def reset(self, seed=None, options=None):
        return np.zeros(3, np.float32), {}


@wrong("no action_space")
class NoActionSpace(gymnasium.Env):
    observation_space = Box(-1, 1, (3,), np.float32)


@wrong("observations", "Text", "TransformObservation", "register")
class TextSpace(Base):
    observation_space = Text(5)


@wrong("actions", "continuous")
class ContinuousActions(Base):
    action_space = Box(-1, 1, (1,))


@wrong("actions", "MultiDiscrete", "register")
class SeveralActions(Base):
    action_space = MultiDiscrete([2, 2])


@wrong("step()", "signal only works in main thread", "played in another", "module is imported")
class SignalInStep(Base):
    def step(self, action):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        return super().step(action)


@wrong("reset()", "can only be used in that same thread", "thread of its constructor")
class BoundToItsThread(Base):
    def __init__(self):
        super().__init__()
        self.rows = sqlite3.connect(":memory:")

    def reset(self, seed=None, options=None):
        self.rows.execute("select 1")
        return super().reset(seed=seed)


@wrong("constructor", "missing", "config", "--environment_kwargs")
class NeedsArgument(Base):
    def __init__(self, config):
        super().__init__()


class Hostile:
    """An object of the environment's own that can be neither shown, compared nor converted."""

    def _raises(self, *_):
        raise RuntimeError("not this")

    __repr__ = __str__ = __len__ = __iter__ = __bool__ = __float__ = __array__ = __eq__ = _raises
    __hash__ = object.__hash__


for _name, _words in (
    ("RewardDigits", ("reward", "'1'", "one number")),
    ("RewardHostile", ("reward", "Hostile", "one number")),
    ("RewardHugeInt", ("reward", "1000", "one number")),
):
    _reward = {"RewardDigits": "1", "RewardHostile": Hostile(), "RewardHugeInt": 10**400}[_name]
    wrong(*_words)(type(_name, (_Reward,), {"reward": _reward}))


@wrong("terminated", "Hostile", "True or False")
class EndHostile(Base):
    def step(self, action):
        observation, reward, *_ = super().step(action)
        return observation, reward, Hostile(), False, {}


@wrong("reset()", "not an array", "Hostile")
class ObservationHostile(Base):
    def obs(self):
        return Hostile()


@right
class InfoHostile(Base):
    def step(self, action):
        return (*super().step(action)[:4], Hostile())


@wrong("observations", "no numbers")
class NoNumbers(Base):
    observation_space = Box(-1, 1, (3, 0), np.float32)


@wrong("observations", "cannot be flattened", "Dict()")
class EmptyDict(Base):
    observation_space = Dict({})


@wrong("observations", "cannot be flattened", "MemoryError")
class DiscreteOfMany(Base):
    observation_space = Discrete(2**52)


@wrong("reset()", "observation_space does not contain", "KeyError: 'b'")
class DictWithoutAKey(Base):
    observation_space = Dict({"a": Discrete(2), "b": Discrete(2)})

    def obs(self):
        return {"a": 1}


@wrong("reset()", "observation_space does not contain", "index 7")
class DiscreteOutOfRange(Base):
    observation_space = Discrete(5)

    def obs(self):
        return 7


@wrong("reset()", "not finite", "infinite")
class TooLargeForFloat32(Base):
    observation_space = Box(-np.inf, np.inf, (3,), np.float64)

    def obs(self):
        return np.full(3, 1e200)


@wrong("observation_space", "RuntimeError: not yet", "zoo.py, line ")
class SpaceRaises(Base):
    @property
    def observation_space(self):
        raise RuntimeError("not yet")


@wrong("step()", "one coroutine", "terminated")
class Coroutine(Base):
    async def step(self, action):
        return super().step(action)


# What raises, and where: every kind of exception in every place.


class Mute(Exception):
    """An error whose text raises one itself."""

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


RAISED = {
    "ValueError": lambda: ValueError("no level\nof this name"),
    "FileNotFoundError": lambda: FileNotFoundError(2, "No such file", "/data/levels.npz"),
    "RuntimeError": lambda: RuntimeError("could not connect to port 2000"),
    "AssertionError": lambda: AssertionError(),
    "KeyError": lambda: KeyError("speed"),
    "SystemExit": lambda: SystemExit("licence expired"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt(),
    "StopIteration": lambda: StopIteration(),
    "GeneratorExit": lambda: GeneratorExit(),
    "MemoryError": lambda: MemoryError(),
    "Mute": lambda: Mute(),
    "ExceptionGroup": lambda: ExceptionGroup("two", [ValueError(1), ValueError(2)]),
    "Strange": lambda: type("Strange", (BaseException,), {})("not even an Exception"),
}


@right
class Raises(Base):
    """Raises `RAISED[what]` in the constructor, reset, step or close; right until then."""

    def __init__(self, where="nowhere", what="ValueError", after=0):
        super().__init__()
        self.where, self.what, self.after = where, what, after
        self.raise_in("constructor")

    def raise_in(self, place):
        if place == self.where:
            if self.after == 0:
                raise RAISED[self.what]()
            self.after -= 1

    def reset(self, seed=None, options=None):
        self.raise_in("reset()")
        return super().reset(seed=seed)

    def step(self, action):
        self.raise_in("step()")
        return super().step(action)

    def close(self):
        self.raise_in("close()")
