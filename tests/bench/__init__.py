"""Benchmarks: scripts that print ratios against a raw floor measured in the same run. They are not tests.

python -m tests.bench.throughput      transitions a second, against raw loops that do the same JSON, locks and SQL
python -m tests.bench.latency         one run at a time, and what an idle engine costs
python -m tests.bench.scale           from 2,000 runs to 200,000; from 1 shard to 64; bytes per run
python -m tests.bench.profile         where the time of one transition goes
"""
