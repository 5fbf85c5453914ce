"""Settings of η: which meta-parameters there are, where they start, and η'."""

from __future__ import annotations

import dataclasses

from meta_impala.config.fields import NEVER, OURS, XU, setting
from meta_impala.config.hyper_parameters import (
    GAMMA,
    LAMBDA,
    TABLE,
    in_order,
    numbers_by_name,
)

# Schedule -> the setting with the two numbers of each meta-parameter but γ and λ.
PAIRS_OF_OTHERS = {"random": "eta_random_ranges", "linear": "eta_linear_ends"}


@dataclasses.dataclass(frozen=True)
class MetaParameterSettings:
    """η: what varies, its start, range and scope."""

    meta_parameters: str = setting(
        "gamma,lambda",
        "What is learned, comma-separated: of "
        + ", ".join(f"{row.name} ({row.meaning})" for row in TABLE.values())
        + "; or none (plain IMPALA). What is not named is a constant. With another --eta_schedule: "
        "the meta-parameters that the schedule sets instead of the meta-gradient.",
        source=XU + " (gamma, lambda); Zahavy et al. 2020 (costs, vtrace_alpha); others " + OURS,
        on_resume=NEVER,
    )
    meta_parameter_ranges: str = setting(
        "",
        "Ranges of learned meta-parameters, both ends open: NAME:LOW,HIGH;... Default: 0 to twice "
        "the constant setting for costs, clips and learning_rate_factor; 0 to 1 for vtrace_alpha "
        "and rmsprop_decay. γ and λ have --gamma_min and so on. The values of another "
        "--eta_schedule lie in them too, ends included.",
        value_if_missing="",
        source=OURS,
    )
    meta_parameter_starts: str = setting(
        "",
        "Starts of learned meta-parameters, or with another --eta_schedule their constants: "
        "NAME:NUMBER;... Default: the constant setting (a learned vtrace_alpha: 0.99). γ and λ "
        "have --gamma and --lambda.",
        value_if_missing="",
        source=OURS,
    )
    meta_parameter_references: str = setting(
        "",
        "Values in η', with which the meta objective is computed: NAME:NUMBER;... Default: the "
        "constant setting. γ and λ have --reference_gamma and --reference_lambda.",
        value_if_missing="",
        source=OURS,
    )
    embedded_meta_parameters: str = setting(
        "none",
        "Which of --meta_parameters the network is fed besides γ and λ, comma-separated; they "
        "widen the input of the embedding.",
        value_if_missing="none",
        source=OURS,
        on_resume=NEVER,
    )
    gamma: float = setting(
        0.99,
        "Discount γ if fixed, its start if learned (strictly between --gamma_min and --gamma_max).",
        source="IMPALA; the start is " + OURS,
        low=0.0,
        high=1.0,
        also_called=("discount", "discount_factor", "discounting"),
    )
    lambda_: float | None = setting(
        None,
        "Bootstrapping parameter λ if fixed, its start if learned (strictly between "
        "--lambda_min and --lambda_max). Default: 1 if fixed, 0.99 if learned.",
        source="IMPALA; the start is " + OURS,
        flag="lambda",
        low=0.0,
        high=1.0,
        also_called=("lambda_", "gae_lambda", "lambd"),
    )
    gamma_min: float = setting(
        0.0,
        "Lower end of the range of a learned γ.",
        value_if_missing=0.0,
        source=OURS,
        low=0.0,
        high=1.0,
    )
    gamma_max: float = setting(
        1.0,
        "Upper end of the range of a learned γ.",
        value_if_missing=1.0,
        source=OURS,
        low=0.0,
        high=1.0,
    )
    lambda_min: float = setting(
        0.0,
        "Lower end of the range of a learned λ.",
        value_if_missing=0.0,
        source=OURS,
        low=0.0,
        high=1.0,
    )
    lambda_max: float = setting(
        1.0,
        "Upper end of the range of a learned λ.",
        value_if_missing=1.0,
        source=OURS,
        low=0.0,
        high=1.0,
    )
    meta_parameter_scope: str = setting(
        "global",
        "What of --meta_parameters is a function of the state, of the torso's features (which it "
        "does not train). global: nothing; state: gamma and lambda; or names, comma-separated, of "
        + ", ".join(row.name for row in TABLE.values() if row.per_state)
        + ". γ and λ are those of the state arrived in, the others of the state left. What acts on "
        "the update as a whole has no state.",
        value_if_missing="global",
        source=XU + " (state was tried and did not help)",
        on_resume=NEVER,
    )

    @property
    def varied(self) -> tuple[str, ...]:
        """The meta-parameters that are learned, or drawn (`eta_schedule`)."""
        return in_order(self.meta_parameters)

    @property
    def embedded(self) -> tuple[str, ...]:
        """The entries of η that the network is fed, in the order in which it is fed."""
        return in_order(f"{GAMMA},{LAMBDA},{self.embedded_meta_parameters}")


@dataclasses.dataclass(frozen=True)
class ReferenceSettings:
    """η', the meta-parameters of the meta objective."""

    reference_gamma: float = setting(
        0.995, "γ', the fixed discount of the meta objective.", source=XU, low=0.0, high=1.0
    )
    reference_lambda: float = setting(
        1.0,
        "λ', the fixed bootstrapping parameter of the meta objective.",
        source=XU,
        low=0.0,
        high=1.0,
    )
    reference_tracking: str = setting(
        "none",
        "Which entries of η' are the current values (as constants) and not fixed, comma-separated: "
        "of " + ", ".join(row.name for row in TABLE.values() if row.in_returns) + ", and what the "
        "network is fed in J' (--embedded_meta_parameters); with --meta_objective=bootstrapped, "
        "whose target makes an update at η', of all meta-parameters; or none.",
        value_if_missing="none",
        source="a question in a published review of the paper",
    )

    @property
    def tracked(self) -> tuple[str, ...]:
        """The entries of η' that are the current values."""
        return in_order(self.reference_tracking)


@dataclasses.dataclass(frozen=True)
class EtaScheduleSettings:
    """The source of η of an unroll."""

    eta_schedule: str = setting(
        "learned",
        "Where the η of --meta_parameters comes from. learned: from the meta-gradient. The other "
        "schedules condition the network on η in the same way but do not learn it: fixed (at its "
        "constants), random (drawn for every unroll), mixture (one of --eta_mixture for "
        "every unroll): the control for multi-task learning; replay (of --eta_schedule_file) and "
        "linear (--eta_linear_gamma, --eta_linear_lambda, --eta_linear_ends): controls that move η "
        "without a meta-gradient. What acts on the update as a whole (learning_rate_factor, "
        "rmsprop_decay, max_gradient_norm) cannot be drawn for an unroll.",
        value_if_missing="learned",
        source="a question in a published review of the paper",
        choices=("learned", "fixed", "random", "mixture", "replay", "linear"),
        on_resume=NEVER,
    )
    eta_mixture: str = setting(
        "0.98,0.9;0.99,0.95;0.995,1",
        "The set of --eta_schedule=mixture: γ,λ;γ,λ;… With other meta-parameters each member also "
        "has NAME:NUMBER for each of them: γ,λ,entropy_cost:0.01;… (or gamma:… for γ and λ too).",
        value_if_missing="0.98,0.9;0.99,0.95;0.995,1",
        source=OURS,
    )
    eta_random_gamma: str = setting(
        "0.9,0.999",
        "Range LOW,HIGH of the γ drawn by --eta_schedule=random, inside (0, 1); its logit is "
        "uniform.",
        value_if_missing="0.9,0.999",
        source=OURS,
    )
    eta_random_lambda: str = setting(
        "0.9,0.999",
        "Range LOW,HIGH of the λ drawn by --eta_schedule=random, inside (0, 1); its logit is "
        "uniform.",
        value_if_missing="0.9,0.999",
        source=OURS,
    )
    eta_random_ranges: str = setting(
        "",
        "Ranges of the other --meta_parameters drawn by --eta_schedule=random, inside "
        "--meta_parameter_ranges: NAME:LOW,HIGH;... The logit of their place there is uniform.",
        value_if_missing="",
        source=OURS,
    )
    eta_schedule_file: str = setting(
        "",
        "The metrics.csv of another run, for --eta_schedule=replay: its columns that "
        "--meta_parameters names, as a step function of frames; the last values are held. The "
        "values of a row apply from the start of the last update before it, as in that run (with "
        "--sample_reuse, which should be that run's, from the first update on that batch); in a "
        "file without the column updates, from the frames of the row on. The file is copied into "
        "the run folder as eta_schedule.csv, and a continued run reads the copy.",
        value_if_missing="",
        on_resume=NEVER,
    )
    eta_schedule_sha256: str = setting(
        "",
        "SHA-256 of --eta_schedule_file; empty: of the file as it is when the run begins.",
        value_if_missing="",
        on_resume=NEVER,
    )
    eta_linear_gamma: str = setting(
        "0.99,0.997",
        "START,END of γ for --eta_schedule=linear, in [0, 1]: linear in frames, the end is reached "
        "at --total_frames. With --meta_parameters=lambda γ stays at --gamma.",
        value_if_missing="0.99,0.997",
        source=OURS,
    )
    eta_linear_lambda: str = setting(
        "1,1",
        "START,END of λ for --eta_schedule=linear, as --eta_linear_gamma. With "
        "--meta_parameters=gamma λ stays at --lambda.",
        value_if_missing="1,1",
        source=OURS,
    )
    eta_linear_ends: str = setting(
        "",
        "START,END of the other --meta_parameters for --eta_schedule=linear, as "
        "--eta_linear_gamma, inside --meta_parameter_ranges: NAME:START,END;...",
        value_if_missing="",
        source=OURS,
    )

    @property
    def eta_members(self) -> tuple[dict[str, float], ...]:
        """The members of `eta_mixture`, by name. Raises ValueError if it is not made of such."""
        return tuple(map(_member, self.eta_mixture.split(";")))


@dataclasses.dataclass(frozen=True)
class EtaSettings(EtaScheduleSettings, ReferenceSettings, MetaParameterSettings):
    """η: what of it is learned or given, its starts and ranges, η', and where η comes from."""

    @property
    def learned(self) -> tuple[str, ...]:
        """The meta-parameters that are learned, in the order of the entries of x."""
        return self.varied if self.eta_schedule == "learned" else ()

    @property
    def of_states(self) -> tuple[str, ...]:
        """The learned meta-parameters that are functions of the state."""
        if self.meta_parameter_scope == "global":
            return ()
        is_both = self.meta_parameter_scope == "state"
        chosen = (GAMMA, LAMBDA) if is_both else in_order(self.meta_parameter_scope)
        return tuple(name for name in chosen if name in self.learned)

    @property
    def eta_is_per_state(self) -> bool:
        """Whether something of η is a function of the state."""
        return bool(self.of_states)

    @property
    def eta_draws(self) -> dict[str, tuple[float, float]]:
        """LOW and HIGH of what is varied, for `random`; checked."""
        return {name: self.eta_pair("random", name) for name in self.varied}

    @property
    def eta_lines(self) -> dict[str, tuple[float, float]]:
        """START and END of what is varied, for `linear`; checked."""
        return {name: self.eta_pair("linear", name) for name in self.varied}

    def eta_pair(self, schedule: str, name: str) -> tuple[float, float]:
        """The two numbers of a meta-parameter in `random` or `linear`.

        Raises:
          KeyError: if it has none; γ and λ have a flag of their own, with a default.
          ValueError: if these are not two numbers.
          UserError: if the flag of the others is not made of names and numbers.
        """
        if name in (GAMMA, LAMBDA):
            first, second = map(float, getattr(self, f"eta_{schedule}_{name}").split(","))
        else:
            flag = PAIRS_OF_OTHERS[schedule]
            first, second = numbers_by_name(flag, getattr(self, flag), 2)[name]
        return first, second


def _member(text: str) -> dict[str, float]:
    """A member of a mixture, `γ,λ` or `NAME:NUMBER,...` or both, by name."""
    pieces = [piece.rpartition(":") for piece in text.split(",")]
    bare = [number for _, colon, number in pieces if not colon]
    if bare and len(bare) != 2:
        raise ValueError(f"{len(bare)} numbers without a name")
    member = dict(zip((GAMMA, LAMBDA), map(float, bare), strict=False))
    for name, colon, number in pieces:
        if colon and (name.strip() not in TABLE or name.strip() in member):
            raise ValueError(f"{name} is no name, or has two numbers")
        if colon:
            member[name.strip()] = float(number)
    return member
