"""Sampan plans, trains and runs GLM-Image-class image models on whatever accelerator is at hand.

Importing the package loads no framework; the rooms below it do, when they are used.
"""

__version__ = "0.1.0"
