"""Every error a user can meet, split by who must act.

AirLoraError
├── InputError          the caller: fix the command, the file or the folder named (exit code 2)
│   ├── SpecError       a SPEC such as ``awgn:snr_db=10`` is wrong
│   ├── DataError       a data file cannot be read as asked
│   ├── ModelError      a model folder cannot be loaded or has nothing to adapt
│   └── OutputError     the output folder is not empty, not writable, or not resumable
├── TrainingError       training diverged: start again with a lower learning rate
├── LinkError           a link state is outside its physics (negative bandwidth, infinite SNR)
├── UpdateError         received bytes are not a valid update
├── CompatibilityError  valid bytes, but for another model, schema or state
└── StoreError          what this program wrote earlier (checkpoint, recording) is missing or corrupt

A message says what is wrong, the value found, the values allowed and the remedy, in one line.
"""


class AirLoraError(Exception):
    """Root of all errors raised on purpose by AirLoRA."""


class InputError(AirLoraError):
    """The caller's input is unusable; nothing was computed or written."""


class SpecError(InputError):
    """A SPEC ``name:key=value,...`` has an unknown name or key, or an impossible value."""


class DataError(InputError):
    """A data file is missing, empty, mis-encoded or lacks the columns asked for."""


class ModelError(InputError):
    """A model is missing or incomplete, or has no projection that can be adapted."""


class OutputError(InputError):
    """The output folder is not empty, not writable, or holds no run to resume."""


class TrainingError(AirLoraError):
    """Training diverged; rounds finished before are kept."""


class LinkError(AirLoraError):
    """A link parameter or state is outside its physics."""


class UpdateError(AirLoraError):
    """Received bytes are not a valid update."""


class CompatibilityError(AirLoraError):
    """A valid update or adapter that belongs to another model, schema or state."""


class StoreError(AirLoraError):
    """A file that this program wrote earlier is missing, corrupt or of another version."""
