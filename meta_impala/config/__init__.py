"""Every setting of a run, declared once: its flag, unit, default, source, range and resume rule.

Nothing here imports TensorFlow, so that a mistake is reported at once.
"""

from meta_impala.config.fields import (
    FREELY,
    NEVER,
    REQUIRED,
    WITH_OVERRIDE,
    allowed_range,
    nearest,
)
from meta_impala.config.resume import (
    differing,
    from_json,
    join_learners,
    merge_for_resume,
    saved_addresses,
    to_json,
    values_if_missing,
    without_addresses,
)
from meta_impala.config.schema import FIELDS, Config, field_type, flag_name
from meta_impala.config.validation import (
    check_addresses,
    resolve,
    resolve_frames,
    resolve_network,
)

__all__ = [
    "FIELDS",
    "FREELY",
    "NEVER",
    "REQUIRED",
    "WITH_OVERRIDE",
    "Config",
    "allowed_range",
    "check_addresses",
    "differing",
    "field_type",
    "flag_name",
    "from_json",
    "join_learners",
    "merge_for_resume",
    "nearest",
    "resolve",
    "resolve_frames",
    "resolve_network",
    "saved_addresses",
    "to_json",
    "values_if_missing",
    "without_addresses",
]
