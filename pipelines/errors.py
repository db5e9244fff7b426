"""Everything that can go wrong in a way the user can mend.

Each message gives the value, the limit and the next step, so that the command line can print it as it is.
"""

from __future__ import annotations


class KintsugiError(Exception):
    """Base of the errors that end a command with exit code 2: wrong usage or bad input, nothing done."""


class FolderError(KintsugiError):
    """A folder is missing, is not a folder, or cannot be read or written."""


class EmptyFolderError(FolderError):
    """No file under the folder has an image suffix."""


class SettingsError(KintsugiError):
    """A `KINTSUGI_*` variable holds a value that cannot be used."""


class JobError(KintsugiError):
    """A job file is missing, is not TOML, or holds a key or value that is not known."""


class DataError(KintsugiError):
    """The images are too few or too odd for what was asked."""


class ModelError(KintsugiError):
    """A model reference does not resolve, or its file is not one of ours."""


class DigestError(ModelError):
    """A file's sha256 is not the one recorded for it: it was changed or damaged."""


class CalibrationError(KintsugiError):
    """Calibration scores are missing, too few, or belong to another model file."""


class RegistryError(KintsugiError):
    """The model registry cannot be reached or refuses the request."""


class OutputError(KintsugiError):
    """The output folder is in use by another run, or holds something else."""


class ReviewError(KintsugiError):
    """An answer is none that there is, or the file of answers cannot be used."""


class EngineError(KintsugiError):
    """Machines that are to do the work are not there, or are lost."""


class ImageError(Exception):
    """One file cannot be decoded. It becomes a row of the report, never a crash."""
