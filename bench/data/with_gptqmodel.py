"""The same quantization by GPTQModel alone: load, quantize, save. Rows of token ids are given."""

import json
import sys

from gptqmodel import GPTQConfig, GPTQModel

model, rows, output = sys.argv[1:]
with open(rows) as file:
    calibration = [{"input_ids": r, "attention_mask": [1] * len(r)} for r in json.load(file)]
config = GPTQConfig(
    bits=4, group_size=128, sym=True, desc_act=False, lm_head=False, damp_percent=0.05,
    device="cpu", pack_impl="original",
)  # fmt: skip
quantizer = GPTQModel.load(model, config)
quantizer.quantize(calibration, batch_size=1, calibration_sort=None)
quantizer.save(output)
