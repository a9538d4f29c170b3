"""Save training states and policies in files, and check the files when they are read back.

A file holds plain arrays and a JSON header. Reading it never imports or calls code. `rotation` keeps the newest
checkpoints of a run, and `identity` describes the program that wrote them.
"""

from pgjax.saving.checkpoints import Checkpoint, metadata, read, restore, save
from pgjax.saving.policies import load_policy, policy_header, read_header, save_policy

__all__ = [
    "Checkpoint",
    "load_policy",
    "metadata",
    "policy_header",
    "read",
    "read_header",
    "restore",
    "save",
    "save_policy",
]
