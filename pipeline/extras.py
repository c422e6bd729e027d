"""Optional dependencies: the extras of the package that a feature needs."""

from importlib.util import find_spec

from pipeline.errors import UsageError

MODULES = {
    "fast": ("ctranslate2",),
    "gguf": ("gguf",),
    "page": ("gradio",),
    "ray": ("ray", "prefect_ray"),
    "search": ("optuna",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
}
"""The modules that each extra installs for us to import."""


def is_installed(module: str) -> bool:
    """Return whether a top-level module is installed, without importing it."""
    found = find_spec(module)
    # A folder of that name in the working directory has no origin; W&B leaves one there.
    return found is not None and found.origin is not None


def has_extra(extra: str) -> bool:
    """Return whether all modules of an extra, one of `MODULES`, are installed."""
    return not _missing_modules(extra)


def require_extra(extra: str, *, user: str) -> None:
    """Check that an extra is installed.

    Args:
        extra: one of `MODULES`.
        user: the feature that needs it, as the subject of a sentence: "The page".

    Raises:
        UsageError: a module of the extra is missing.
    """
    if missing := _missing_modules(extra):
        raise UsageError(f"{user} needs {' and '.join(missing)}. Run: pip install 'lectern-chapters[{extra}]'")


def _missing_modules(extra: str) -> list[str]:
    return [module for module in MODULES[extra] if not is_installed(module)]
