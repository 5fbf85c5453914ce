"""`meta_impala.doctor`: why does a run not learn?

`evidence.py` is what is known of a run, `batch_evidence.py` what a few games with its newest
checkpoint add; `metric_checks.py` and `batch_checks.py` are the checks, one function each, with
their thresholds and the reasons for them; `verdict.py` runs them all and writes the answer.
"""
