"""Declared parameters: the files under ``include/`` that give stored ids their meaning.

Data on disk carries ids such as ``int8-symmetric-v1``. ``include/models/<id>.json`` says what each one means; the files
are append-only: a changed parameter is a new id in a new file.
"""

from __future__ import annotations

import copy
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from akosha.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HOME_VARIABLE = "AKOSHA_HOME"
SIGNS_ID = "sign-centred-v1"
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def include_folder() -> Path:
    """The folder of declared files: ``$AKOSHA_HOME/include`` if that is set, else the one of this checkout.

    Raises:
        ConfigurationError: there is no such folder.
    """
    home = os.environ.get(HOME_VARIABLE, "")
    folder = (Path(home) if home else Path(__file__).resolve().parents[2]) / "include"
    if not folder.is_dir():
        message = f"the folder of declared files is missing: set {HOME_VARIABLE} to the folder that holds include/"
        raise ConfigurationError(message, expected=str(folder), setting=HOME_VARIABLE)
    return folder


def include_text(*parts: str) -> str:
    """The text of one declared file, for example ``include_text("sql", "insert_keys.sql")``.

    Args:
        parts: plain folder and file names below ``include/``; ``..`` and separators are refused.

    Raises:
        ConfigurationError: a name is not plain, or the file is missing.
    """
    if not all(_PART.fullmatch(part) for part in parts):
        message = "expected plain names of declared files: letters, digits, dot, dash and underscore"
        raise ConfigurationError(message, found="/".join(parts))
    return _read(include_folder().joinpath(*parts))


@cache
def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        message = "a declared file is missing: update the checkout, or upgrade Akosha if newer data names it"
        raise ConfigurationError(message, expected=str(path), setting=HOME_VARIABLE) from None


def model(model_id: str) -> dict[str, Any]:
    """The declared parameters behind an id found in stored data.

    Args:
        model_id: for example ``all-minilm-l6-v2`` or ``minhash-affine32-byte8-v1``.

    Returns:
        The JSON document ``include/models/<model_id>.json``, read once; each call gets its own copy.

    Raises:
        ConfigurationError: the id is not declared, or its file does not carry that id.
    """
    if not _ID.fullmatch(model_id):
        message = "expected an id of lower-case words joined by dashes, for example int8-symmetric-v1"
        raise ConfigurationError(message, found=model_id)
    document = copy.deepcopy(_document(include_text("models", f"{model_id}.json")))
    if document.get("id") != model_id:
        message = "a declared file must carry the id it is named after: restore include/models"
        raise ConfigurationError(message, expected=model_id, found=document.get("id"))
    return document


@cache
def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        message = "a declared file is not JSON: restore include/models from the repository"
        raise ConfigurationError(message, found=str(error)) from None
    return document if isinstance(document, dict) else {}


def model_ids() -> list[str]:
    """Every declared id, sorted."""
    return sorted(path.stem for path in (include_folder() / "models").glob("*.json") if _ID.fullmatch(path.stem))


def sign_mean(signs_id: str = SIGNS_ID) -> NDArray[np.float32]:
    """The declared mean that sign bits are centred on: float32, shape ``(384,)``.

    Raises:
        ConfigurationError: the id is not declared or its mean does not have its declared dimension.
    """
    import numpy as np  # not above: the process that reads uploads does without

    declared = model(signs_id)
    mean = np.array(declared.get("mean", []), dtype=np.float32)
    if mean.shape != (declared.get("dimension"),):
        message = "the declared mean has another length than the declared dimension: restore include/models"
        raise ConfigurationError(message, expected=declared.get("dimension"), found=mean.shape)
    return mean
