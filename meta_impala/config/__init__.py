"""The settings of a run: each declared once, in the group that owns it.

* `*_settings.py`: the groups, small dataclasses that components take (`composed_settings.py`: of
  several groups); `fields.py`: how a setting is declared; `schema.py`: `Config`, all groups.
* `validation.py`: `resolve`, from the given flags to the settings of a run; it checks each setting,
  `derived.py` chooses those left open, `checks.py` refuses combinations that make no sense.
* `resume.py`: `config.json`, older files, continued runs, further learners.
* `flags.py`: the command line; `parsers.py`, `flag_files.py`, `suggestions.py`: parts of it;
  `number_flags.py`: numeric flags that are no settings.
* `text.py`: rules for text from outside.

Nothing here imports TensorFlow, so that a mistake is reported at once.
"""

from meta_impala.config.actor_settings import ActorSettings
from meta_impala.config.composed_settings import (
    ActingSettings,
    AgentSettings,
    BatcherSettings,
    MethodSettings,
    PeriodicEvaluationSettings,
    RemoteActorSettings,
    TableSettings,
    UpdateSettings,
)
from meta_impala.config.fields import FREELY, allowed_range, nearest
from meta_impala.config.learner_settings import LearnerSettings
from meta_impala.config.loss_settings import BatchSettings
from meta_impala.config.meta_loss_settings import MetaLossSettings
from meta_impala.config.optimizer_settings import OptimizerSettings
from meta_impala.config.resume import (
    differences,
    differing,
    from_json,
    join_learners,
    merge_for_resume,
    refuse_addresses,
    saved_addresses,
    to_json,
    values_if_missing,
    without_addresses,
)
from meta_impala.config.run_settings import RunSettings
from meta_impala.config.schema import FIELDS, Config, field_type
from meta_impala.config.validation import (
    check_addresses,
    check_frames,
    checked_value,
    refuse_background,
    resolve,
    resolve_network,
)

__all__ = [
    "FIELDS",
    "FREELY",
    "ActingSettings",
    "ActorSettings",
    "AgentSettings",
    "BatchSettings",
    "BatcherSettings",
    "Config",
    "LearnerSettings",
    "MetaLossSettings",
    "MethodSettings",
    "OptimizerSettings",
    "PeriodicEvaluationSettings",
    "RemoteActorSettings",
    "RunSettings",
    "TableSettings",
    "UpdateSettings",
    "allowed_range",
    "check_addresses",
    "check_frames",
    "checked_value",
    "differences",
    "differing",
    "field_type",
    "from_json",
    "join_learners",
    "merge_for_resume",
    "nearest",
    "refuse_addresses",
    "refuse_background",
    "resolve",
    "resolve_network",
    "saved_addresses",
    "to_json",
    "values_if_missing",
    "without_addresses",
]
