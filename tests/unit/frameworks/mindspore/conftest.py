"""MindSpore takes its device once, before anything is computed; some files compute while they are collected."""

from __future__ import annotations

from sampan.frameworks.mindspore import device

device.resolve("cpu")
