"""Benchmarks: Headrace beside its peers, load from `wrk`, ratios of medians from one run.

`python -m benches` lists them; docs/benchmarks.md says how they measure.
"""
