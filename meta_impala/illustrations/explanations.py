"""Explains the results of the two examples: every answer is an experiment and a sentence.

`gather` runs the experiments of an example, `sentences` describes their results. The command writes
both: `explained.md`, `explained.png` and the numbers as CSV files.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from meta_impala.illustrations import chain_experiments as experiments
from meta_impala.illustrations import chain_results as results
from meta_impala.illustrations.chain_experiments import Indexing, Speed, Sweep, Targets
from meta_impala.illustrations.chains import ALIASED, make
from meta_impala.illustrations.settings import DISCOUNT, Settings
from meta_impala.illustrations.simulation import History


class Evidence(NamedTuple):
    """The numbers behind the sentences of one example.

    Attributes:
      history: of the example itself.
      sweep: over the inner step size.
      other_sweep: the same with the other last reward; None in discount.
      indexing: by number of states: in discount also for a chain that ends in a signal state.
      targets: by name; in bootstrap the two of a bottleneck, in discount γ = 1; and "learned".
      speed: of learning v.
    """

    history: History
    sweep: Sweep
    other_sweep: Sweep | None
    indexing: dict[int, Indexing]
    targets: dict[str, Targets]
    speed: Speed


def gather(settings: Settings, history: History) -> Evidence:
    """Runs all experiments of an example."""
    num_states = make(settings).num_states
    values = history.values[-1].mean(axis=-1)
    learned = experiments.eta_of_states(settings, history.eta[-1].mean(axis=-1))
    targets = {"learned": experiments.targets(settings, learned, values)}
    other_sweep = None
    lengths = [num_states]
    if settings.example == DISCOUNT:
        ones = learned._replace(gamma=np.ones(num_states))
        targets["γ = 1"] = experiments.targets(settings, ones, values)
        if num_states % 2 == 0 and num_states > 2:
            lengths.append(num_states - 1)
    else:
        bootstrapped, through = experiments.two_bottleneck_targets(settings, values)
        targets["bootstrapped"], targets["through"] = bootstrapped, through
        other_sweep = experiments.sweep(with_other_last_reward(settings))
    sweep = experiments.sweep(settings)
    best_pair = sweep.pairs["best"][sweep.row_of(settings.inner_step_size)]
    return Evidence(
        history=history,
        sweep=sweep,
        other_sweep=other_sweep,
        indexing={length: experiments.indexing(settings, length) for length in lengths},
        targets=targets,
        speed=experiments.speed(settings, history, best_pair),
    )


def with_other_last_reward(settings: Settings) -> Settings:
    """bootstrap with the last reward zero instead of random, or the other way round."""
    other = "random" if settings.last_reward == "zero" else "zero"
    return dataclasses.replace(settings, last_reward=other)


def sentences(settings: Settings, evidence: Evidence) -> str:
    """`explained.md`."""
    parts = [
        f"# The example `{settings.example}` explained",
        f"Measured with {settings.seeds} seeds and {settings.episodes:,} episodes; the numbers are "
        "in `explained_*.csv`, the plots in `explained.png`. Errors are root mean squares of "
        "v(s) − true v(s) over states, seeds and episodes.",
        _on_idle_states(settings, evidence),
        _on_indexing(settings, evidence),
        _on_step_size(settings, evidence),
        _on_targets(settings, evidence),
        _on_errors(settings, evidence),
        _on_speed(settings, evidence),
    ]
    return "\n\n".join(parts) + "\n"


def _means(final: np.ndarray) -> str:
    return " ".join(f"{value:.2f}" for value in final.mean(axis=-1))


def _on_idle_states(settings: Settings, evidence: Evidence) -> str:
    start = f"{settings.start:.3f}"
    length = min(evidence.indexing)
    run = evidence.indexing[length]
    first, last = (f"{final.mean():.3f}" for final in (run.arrived[0], run.arrived[-1]))
    if settings.example == DISCOUNT:
        return (
            f"**Why γ({length}) gets a value though state {length}'s successor is terminal.** γ(s) "
            f"belongs to the state arrived in: γ({length}) multiplies the reward paid on *leaving* "
            f"state {length} in the returns of all states before, whatever comes after. In a chain "
            f"of {length} states it goes from {start} to {last}, and γ(1), which nothing arrives "
            f"at, stays at {first}. With γ(s) of the state left it is the reverse: γ({length}) "
            f"stays at {run.left[-1].mean():.3f}, γ(1) goes to {run.left[0].mean():.3f}."
        )
    return (
        f"**Which λ cannot move.** Nothing arrives in state 1, so λ(1) has no gradient: it ends at "
        f"{first} from {start}. λ({length}) weighs v({length}) against the reward after the last "
        "state; when that is zero and v starts at zero, both are zero at all times and "
        f"λ({length}) has no gradient either: it ends at {last}."
    )


def _on_indexing(settings: Settings, evidence: Evidence) -> str:
    symbol = "γ" if settings.learned == "gamma" else "λ"
    run = evidence.indexing[make(settings).num_states]
    shift = np.abs(run.left[:-1] - run.arrived[1:]).max()
    reading = (
        "now a signal state's γ gates the noise that comes next and is low, and a noise state's is "
        "high"
        if settings.example == DISCOUNT
        else "now a bottleneck's λ says whether to bootstrap in the aliased state that comes next "
        "and is high"
    )
    return (
        f"**The other indexing.** {symbol}(s) of the state arrived in ends at "
        f"{_means(run.arrived)} (states 1, 2, …), of the state left at {_means(run.left)}. It is "
        f"the same run moved by one state (largest difference between {symbol}(s) left and "
        f"{symbol}(s+1) arrived in: {shift:.1g}); {reading}: the picture of the paper with the "
        "labels exchanged."
    )


def _on_step_size(settings: Settings, evidence: Evidence) -> str:
    sweep, kinds = evidence.sweep, make(settings).kinds
    high, low = ("signal", "noise") if settings.example == DISCOUNT else ("aliased", "bottleneck")
    rows = []
    for step_size, final in zip(sweep.step_sizes, sweep.eta, strict=True):
        found = results.verdict(settings.example, kinds, final)
        highest_low = found.lowest_high - found.gap
        rows.append(f"α = {step_size:g}: {found.lowest_high:.2f} and {highest_low:.2f}")
    return (
        "**The split depends on the inner step size.** With e = v − true v and b the bias of the "
        "target g, one update leaves an expected squared error of ((1 − α) e + α b)² + α² Var g: "
        "what η does to the bias counts in the order of α, what it does to the variance in the "
        f"order of α². Lowest mean of {high} and highest of {low} states: {'; '.join(rows)}."
    )


def _on_targets(settings: Settings, evidence: Evidence) -> str:
    learned = evidence.targets["learned"]
    if settings.example == DISCOUNT:
        ones = evidence.targets["γ = 1"]
        true_value = make(settings).true_values(settings.reference_gamma)[0]
        return (
            f"**What the learned γ does to a target.** The return of state 1 (true value "
            f"{true_value:.2f}) has mean {ones.mean[0]:.3f} and variance {ones.variance[0]:.3f} at "
            f"γ = 1, and {learned.mean[0]:.3f} and {learned.variance[0]:.3f} at the learned γ: "
            f"{learned.variance[0] / max(ones.variance[0], 1e-12):.1%} of the variance is left, "
            "and it is paid for with bias."
        )
    before_aliased = np.flatnonzero(np.array(make(settings).kinds)[1:] == ALIASED)
    bootstrapped, through, mixed = (
        evidence.targets[name].variance[before_aliased].mean()
        for name in ("bootstrapped", "through", "learned")
    )
    bottlenecks = _means(evidence.history.eta[-1, ::2])
    return (
        "**The two targets of a bottleneck.** Bootstrapping in the aliased state: r_i + "
        f"v(aliased), measured variance {bootstrapped:.3f} (that of ±r_i is "
        f"{settings.noise**2:.3f}). Going through it to the next bottleneck: r_i − r_i + v(next), "
        f"variance {through:.3f}. With the learned λ: {mixed:.4f}. (v held fixed.) An aliased λ "
        "near 1 takes the noise out; after that a bottleneck's λ only mixes two nearly noiseless "
        f"numbers, so little is left to learn from and it stays near its start: {bottlenecks}."
    )


def _on_errors(settings: Settings, evidence: Evidence) -> str:
    text = "**The error of v.** " + _error_sentence(settings, evidence.sweep)
    if evidence.other_sweep is None:
        gain = evidence.sweep.error("ones") - evidence.sweep.error("learned")  # [R], α rising
        if gain[-1] > 0 > gain[0]:
            text += (
                " The learned γ pays off at a large α and, in these episodes, not at a small one, "
                "where averaging over episodes takes most of the noise out anyway."
            )
        return text
    other = with_other_last_reward(settings)
    return (
        f"{text} With the last reward {other.last_reward} instead of {settings.last_reward}: "
        f"{_error_sentence(other, evidence.other_sweep)} When the last reward is zero the return "
        "of a bottleneck has no noise at all, and there is nothing to gain over λ = 1; only a "
        "random last reward leaves something. All true values of this process are 0, so a γ below "
        "1 costs no bias in it and the γ of the grid has no meaning."
    )


def _error_sentence(settings: Settings, sweep: Sweep) -> str:
    names = ("learned", "ones", "best_single", "best")
    row, small = sweep.row_of(settings.inner_step_size), int(sweep.step_sizes.argmin())
    every = {name: f"{sweep.error(name)[row]:.3f}" for name in names}
    odd = ", ".join(f"{sweep.error_of_odd_states(name)[row]:.3f}" for name in names)
    at_small = ", ".join(f"{sweep.error(name)[small]:.3f}" for name in names)
    gamma, lambda_ = sweep.pairs["best"][row]
    single = sweep.pairs["best_single"][row]
    kind = make(settings).kinds[0]
    return (
        f"At α = {settings.inner_step_size:g} it is {every['learned']} with the learned values, "
        f"{every['ones']} with γ = λ = 1, {every['best_single']} with the best single value of the "
        f"learned kind (γ = {single[0]:g}, λ = {single[1]:g}) and {every['best']} with the "
        f"best single pair (γ = {gamma:g}, λ = {lambda_:g}); over the {kind} states alone {odd}. "
        f"At α = {sweep.step_sizes[small]:g}, over all states: {at_small}."
    )


def _on_speed(settings: Settings, evidence: Evidence) -> str:
    settled, errors = evidence.speed.settled, evidence.speed.errors
    ends = {name: curve[len(curve) // 2 :].mean() for name, curve in errors.items()}
    return (
        f"**The speed of learning v.** From a v that starts {experiments.SPEED_OFFSET:g} too high, "
        f"with η fixed, the error comes within a tenth of its final level after "
        f"{settled['learned']} episodes at the learned values (level {ends['learned']:.3f}), "
        f"{settled['ones']} at γ = λ = 1 ({ends['ones']:.3f}) and {settled['best']} at the best "
        f"single pair ({ends['best']:.3f}). With λ = 1 no target contains v, so every state "
        "forgets a wrong start by 1 − α per episode whatever γ is; a λ below 1 copies a wrong v "
        "from state to state."
    )
