"""The package's public names are those of its table, found where the table says."""

from __future__ import annotations

import pytest

import realesr_cli


def test_every_public_name_resolves() -> None:
    for name in realesr_cli.__all__:
        assert getattr(realesr_cli, name) is not None
        assert name in dir(realesr_cli)
    assert set(realesr_cli.__all__) == {*realesr_cli._PUBLIC, "__version__"}


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'upscal'"):
        realesr_cli.upscal  # noqa: B018
