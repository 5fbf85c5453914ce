"""Documents that are written are JSON to every reader (ground truth)."""

import json
import math

from meta_impala.storage.json_files import json_document


def test_a_number_that_is_not_finite_is_null():
    content = {"a": [1.0, math.nan, {"b": (math.inf, 2)}], "c": -math.inf, "d": "NaN", "e": True}
    text = json_document(content)
    expected = {"a": [1.0, None, {"b": [None, 2]}], "c": None, "d": "NaN", "e": True}
    assert json.loads(text) == expected
    assert text.endswith("}\n") and "Infinity" not in text and text.count("NaN") == 1


def test_what_is_finite_is_written_as_json_writes_it():
    content = {"γ": 0.5, "numbers": [1, 2.0], "none": None}
    assert json_document(content) == json.dumps(content, indent=2) + "\n"
    assert '"γ": 0.5' in json_document(content, ensure_ascii=False)
