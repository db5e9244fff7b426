"""Benchmarks: the software and what it is compared with, on the same images in the same run.

`anomaly.py` is the benchmark of anomaly detection: read it first. A *method* is a row of its table, a *cell* is one
method with one seed, run in a process of its own (`cell.py`). Several data sets share a table (`joint.py`). `drift.py`
measures verdicts after changes of light and camera (`shifts.py`). The parent's side (anomaly, dataset, methods, cells,
given_scores, summary, false_alarm_rates, paired_bootstrap, page, joint, anomalib_environment) needs no torch.
"""

__all__ = ["anomaly", "drift", "methods", "restoration", "throughput"]
