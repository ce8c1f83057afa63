"""Quality: negative log-likelihoods of evaluation sets under base, dynamic, merged, quantized."""

from lora_jobs.torchruntime import prepare

prepare()
