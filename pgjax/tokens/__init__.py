"""Tokenisers: text to arrays of token numbers and back.

`bytes_` needs nothing and loses nothing; `alphabet` makes small vocabularies, which exact computations need;
`from_gguf` and `from_json` read the tokeniser of a language model from a local file.
"""

from pgjax.tokens.files import from_gguf, from_json
from pgjax.tokens.tokeniser import Tokeniser, alphabet, bytes_

__all__ = ["Tokeniser", "alphabet", "bytes_", "from_gguf", "from_json"]
