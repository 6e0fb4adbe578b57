"""`sampan bench`: the same training step on several frameworks, compared before it is timed.

Each framework in each mode runs in a process of its own (worker.py); the process that asks them loads no framework. Ratios
taken on a CPU say nothing about an accelerator.
"""
