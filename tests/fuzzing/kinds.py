"""Every kind of file or text that Poise reads."""

from fuzzing.artefacts import ARTEFACTS
from fuzzing.data_files import DATA_FILES
from fuzzing.texts import TEXTS

KINDS = (*ARTEFACTS, *DATA_FILES, *TEXTS)
