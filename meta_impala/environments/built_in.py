"""Ids of the tasks that come with the program, known without importing Gymnasium."""

from typing import Any

CATCH_ID = "meta_impala/Catch-v0"
PATIENCE_ID = "meta_impala/Patience-v0"
NOISE_ID = "meta_impala/Noise-v0"
SWITCHING_ID = "meta_impala/Switching-v0"
SWITCHING_FIRST_ID = "meta_impala/SwitchingFirst-v0"
SWITCHING_SECOND_ID = "meta_impala/SwitchingSecond-v0"

# Registered for scoring only: see `EVALUATED_IN`.
NOISE_EVALUATION_ID = "meta_impala/NoiseEvaluation-v0"
SWITCHING_EVALUATION_ID = "meta_impala/SwitchingEvaluation-v0"

# Short name -> id.
BUILT_IN: dict[str, str] = {
    "Catch": CATCH_ID,
    "Patience": PATIENCE_ID,
    "Noise": NOISE_ID,
    "Switching": SWITCHING_ID,
    "Switching/first": SWITCHING_FIRST_ID,
    "Switching/second": SWITCHING_SECOND_ID,
    "Noise/evaluation": NOISE_EVALUATION_ID,
    "Switching/evaluation": SWITCHING_EVALUATION_ID,
}

# Tasks whose own return is a poor score -> the task in which their agents are scored.
EVALUATED_IN: dict[str, str] = {
    NOISE_ID: NOISE_EVALUATION_ID,
    SWITCHING_ID: SWITCHING_EVALUATION_ID,
}

# What such a task fixes: the arguments that make it a score.
EVALUATION_ARGUMENTS: dict[str, dict[str, Any]] = {
    NOISE_EVALUATION_ID: {"sigma": 0.0},
    # The coin pays nothing, its mean, so a return is exactly what the answers paid.
    SWITCHING_EVALUATION_ID: {"play": "both", "sigma": 0.0},
}
