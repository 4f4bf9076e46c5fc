"""The benchmarks: each compares Tenantry with a peer or with the least the work could cost, in the same run."""
