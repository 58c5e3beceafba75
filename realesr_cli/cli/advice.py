"""What a user of the command line can do about an error: the one place where flags meet errors.

Library errors carry a key (`RealesrError.advice`); its sentence is added to the message here.
"""

from __future__ import annotations

from realesr_cli.errors import RealesrError, RealesrWarning

ADVICE: dict[str, str] = {
    "absent-file": "On a connected machine run `realesr models pull {name}`, and here "
    "`realesr models import {file}`.",
    "absent-model": "On a connected machine run `realesr models pull {name}`, and here "
    "`realesr models import {file}`; or use an installed model (`realesr models list`) or a file "
    "(--model FILE).",
    "ambiguous-model": "If so, import it with `realesr models import FILE --assume NAME=VALUE`, "
    "where NAME=VALUE is activation=leakyrelu or scale=3, and use the imported model.",
    "backend": "`realesr doctor` lists the backends; --backend auto chooses one that works.",
    "archive-format": "Choose another format with --format.",
    "archive-output": "Name a .cbz or .zip file, or a folder, with -o.",
    "choose-format": "Choose a format with --format.",
    "choose-output": "Choose another output with -o.",
    "corrupt-weights": "Check the file with `realesr models verify`, or download it again.",
    "denoise-of-mixture": "Omit --denoise, or mix first, with `realesr models interpolate`.",
    "distinct-outputs": "Give a folder as input, or use {name} or {parent} in a template for -o.",
    "doctor": "`realesr doctor` says why a device is missing and how to fix it.",
    "evaluate-crop": "Use --scale or --crop.",
    "evaluate-lq": "Use --lq FOLDER, or --degrade bicubic to create them from the ground truths.",
    "evaluate-scale": "Use --scale.",
    "evaluate-what": "Use --lq or --degrade with models (-m), or name folders of results.",
    "feat-squeeze": "docs/evaluation.md shows how to make the file; then run "
    "`realesr models import FILE`, or give it with --feat-weights.",
    "folder-or-template": "Give a folder, or a template such as '{stem}_x{scale}{ext}', with -o.",
    "max-pixels": "If you trust the file, raise the limit with --max-pixels.",
    "half-safetensors": "--to half writes fp16 safetensors.",
    "import-name": "Give it another name with --name.",
    "mixture-of-mixture": "Write it to a file with `realesr models interpolate`, and mix that.",
    "model-without-address": "Get {file} and run `realesr models import {file}`.",
    "names": "If the prefix or suffix is not detected, give --lq-prefix or --lq-suffix.",
    "onnx-refused": "A lower --opset or a newer onnxruntime may help.",
    "out-of-memory": "Close other programs, or choose a smaller model with --model.",
    "overwrite": "Use --overwrite to replace it.",
    "overwrite-folder": "Use --overwrite to write into it anyway.",
    "overwrite-or-rename": "Replace it with --overwrite, or write elsewhere with -o.",
    "pipe-to-stdin": "Pipe its contents to standard input and give - as the input.",
    "precision": "Use --precision auto.",
    "result-too-large": "Request a smaller size with --scale, --max-side or --fit.",
    "search-subfolders": "Search subfolders too with --recursive.",
    "accept-changes": "Resume with its own settings (--resume --out FOLDER alone takes them), or "
    "add --accept-changes.",
    "check-dataset": "`realesr dataset check` lists what is wrong.",
    "init-scale": "Use a recipe of that scale or another network, or load only the tensors that "
    "fit with --set generator.init_partial=true.",
    "perceptual-weights": "Give a copy of the file with --set perceptual.weights=FILE; use a small "
    "replacement with --set perceptual.backbone=squeezenet1_1 and its own perceptual.weights; or "
    "train without it with --set perceptual.weight=0.",
    "resume": "Continue with --resume.",
    "ray-address": "Start one with `ray start --head`, or give its address: --on ray://HOST:PORT.",
    "resume-changed": "Then continue with --resume --accept-changes.",
    "resume-later": "Free some space, then continue with --resume.",
    "resume-or-rename": "Continue it with --resume, or give another folder with --out.",
    "train-data": "Give a folder with --data.",
    "train-features": "docs/evaluation.md shows how to make the file; then run "
    "`realesr models import FILE`, or give it with --set validation.feat_weights=FILE.",
    "train-lq": "Give --lq for each --data.",
    "spare-model": "`realesr models pull {name}` downloads the large one.",
    "train-teacher": "Give it with --teacher.",
    "train-names": "If the prefix or suffix is not detected, set data.lq_prefix or data.lq_suffix, "
    "for example --set data.lq_suffix=x4.",
    "unknown-model": "`realesr models list` shows all; the path of a .pth or .safetensors file or "
    "of a training run works too.",
    "url-output": "Name a folder or a URL with -o.",
    "unusable-cache": "Make room or change permissions, or set REALESR_HOME to another folder.",
    "image-not-video": "Use `realesr upscale` for it.",
    "video-changed": "Start over with --no-resume, or name another folder with --job-dir.",
    "video-color": "State the matrix with --color.",
    "video-encoder": "Choose another --codec, --pix-fmt or size.",
    "video-resume": "The same command continues where it ended.",
    "video-streams": "Write a .mkv file, or drop what does not fit with --drop-incompatible.",
    "unverified-model": "--allow-unverified downloads it anyway.",
}
"""Sentence by key. Every key that the library uses is here, and every key here is used."""


def message_with_advice(error: RealesrError | RealesrWarning) -> str:
    """Return the message of an error or a warning, followed by its advice if it has one."""
    text = str(error)
    if not error.advice:
        return text
    separator = "\n" if "\n" in text else " " if text.endswith(("?", ".")) else ". "
    advice = ADVICE[error.advice]
    return f"{text}{separator}{advice.format_map(error.values) if error.values else advice}"
