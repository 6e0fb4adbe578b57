"""The seam on MindSpore, for CPU and Ascend."""
