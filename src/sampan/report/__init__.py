"""HTML pages of plans, benchmarks, evaluations and rules: one frame, tables and charts."""
