"""Quantization: calibration rows, GPTQ, and an artifact whose bytes depend on its inputs only."""

from lora_jobs.torchruntime import prepare

prepare()
