"""`lora-jobs quantize`: one 16-bit model into one quantized model, by hand."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def quantize(
    model: Annotated[
        Path,
        typer.Option(help="Folder of the 16-bit (merged) model.", exists=True, file_okay=False),
    ],
    calibration: Annotated[
        list[Path],
        typer.Option(
            help="Calibration set: .jsonl, .json, .parquet, .txt, or a folder; repeatable.",
            exists=True,
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; must be empty or missing.")],
    weight: Annotated[
        list[str] | None,
        typer.Option(help="Share of each --calibration in the samples; one for each, or none."),
    ] = None,
    method: Annotated[str, typer.Option(help="GPTQ or AWQ.")] = "GPTQ",
    bits: Annotated[int, typer.Option(help="Bits of each weight.", min=4, max=4)] = 4,
    group_size: Annotated[
        int, typer.Option(help="Input columns that share one scale: 32, 64 or 128.")
    ] = 128,
    samples: Annotated[int, typer.Option(help="Rows of calibration tokens.", min=1)] = 128,
    sequence_length: Annotated[int, typer.Option(help="Tokens of each row.", min=16)] = 2048,
    seed: Annotated[int, typer.Option(help="Decides the order of the records.", min=0)] = 0,
    damping: Annotated[str, typer.Option(help="GPTQ's damp_percent, a decimal fraction.")] = "0.05",
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Folder for finished layers: a run that was killed goes on from it."),
    ] = None,
) -> None:
    """Quantize a model with GPTQ or AWQ; the output loads in vLLM, SGLang and Transformers.

    The calibration set should look like what the model will be asked, and share no record with the
    sets it is evaluated on. Equal inputs give equal bytes on one kind of device.
    """
    from lora_api.spec import QuantizationMethod, RecordFormat
    from lora_jobs.byhand import checked_weights, empty_folder, progress_bar
    from lora_jobs.datasets.records import read_records
    from lora_jobs.quantizing.lowbits import quantize_model
    from lora_jobs.quantizing.rows import rows_for_model

    if method not in ("GPTQ", "AWQ"):
        raise typer.BadParameter("there are GPTQ and AWQ", param_hint="--method")
    if group_size not in (32, 64, 128):
        raise typer.BadParameter("engines load 32, 64 or 128", param_hint="--group-size")
    weights = checked_weights(weight or [], len(calibration), "calibration sets")
    if any(not float(text) for text in weights):
        raise typer.BadParameter("0 gives no sample: leave the set out", param_hint="--weight")
    empty_folder(output)
    rows = rows_for_model(
        model,
        [read_records(path, RecordFormat.AUTO) for path in calibration],
        samples=samples,
        sequence_length=sequence_length,
        seed=seed,
        weights=weights,
    )
    with progress_bar() as progress:
        report = quantize_model(
            model,
            rows,
            output,
            method=QuantizationMethod(method),
            bits=bits,
            group_size=group_size,
            damping=damping,
            progress=progress,
            checkpoint=checkpoint,
        )
    print(report.message())
    print(f"{output}: {report.notes()['tools']}, {report.seconds:.0f} s", file=sys.stderr)
