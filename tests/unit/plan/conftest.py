"""Tests of planning run beside the framework of the process, which other tests in it need."""

from sampan import frameworks

frameworks.chosen()
