"""Names of RRDBNet's tensors in the older key layouts, from those of the new one."""

from __future__ import annotations


def to_mid(name: str) -> str:
    """Return the name in the layout of BSRGAN and of the ESRGAN repository today."""
    name = name.replace("conv_body", "trunk_conv").replace("conv_hr", "HRconv")
    name = name.replace("rdb", "RDB").replace("body.", "RRDB_trunk.", 1)
    return name.replace("conv_up", "upconv")


def to_old(name: str, blocks: int, ups: int) -> str:
    """Return the name in the layout of the first ESRGAN release and of most community models."""
    stem, _, end = name.rpartition(".")
    if stem.startswith("body."):
        _, block, dense, conv = stem.split(".")
        nested = f"{conv}.0" if conv != "conv1x1" else conv
        return f"model.1.sub.{block}.{dense.upper()}.{nested}.{end}"
    if stem.startswith("conv_up"):
        return f"model.{3 * int(stem[7:])}.{end}"
    plain = {
        "conv_first": "model.0",
        "conv_body": f"model.1.sub.{blocks}",
        "conv_hr": f"model.{3 * ups + 2}",
        "conv_last": f"model.{3 * ups + 4}",
    }
    return f"{plain[stem]}.{end}"
