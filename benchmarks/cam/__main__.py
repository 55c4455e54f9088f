"""Remakes every result: python -m benchmarks.cam"""

from benchmarks.cam import cost, discount, kernels, retrieval, safety

for experiment in (kernels, discount, safety, cost, retrieval):
    experiment.main()
