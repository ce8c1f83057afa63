"""Quality: negative log-likelihoods of evaluation sets under base, dynamic, merged, quantized."""
