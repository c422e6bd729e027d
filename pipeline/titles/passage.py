"""Title one passage."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pipeline.errors import Rejected, UsageError
from pipeline.models.title_cleanup import is_usable_title, shorten_title
from pipeline.titles.served_version import ServedVersion, load_version
from pipeline.titles.settings import TitlesSettings

_log = logging.getLogger(__name__)


def title_passage(text: str, version: ServedVersion, parameters: Mapping[str, object]) -> list[str]:
    """Write candidate titles for a passage, best first.

    If the model writes no usable title, the result is the best keyphrase of the text, and a warning is logged.

    Args:
        parameters: generation parameters that the signature of the registered model allows.

    Raises:
        Rejected: the version cannot be loaded, or the text has no keyphrase either.
        UsageError: a parameter is out of range.
    """
    predict = load_version(version)
    try:
        (written,) = predict([text], parameters)
    except ValueError as error:
        raise UsageError(str(error)) from None
    longest = TitlesSettings.read().longest
    if not written.fallback:
        return [shorten_title(title, longest) for title in written.candidates if is_usable_title(title)]
    if not written.title:
        raise Rejected(
            f"Version {version.number} wrote no usable title, and the text has no keyphrase. Give a longer passage."
        )
    _log.warning("Version %s wrote no usable title. This is a keyphrase of the text.", version.number)
    return [shorten_title(written.title, longest)]
