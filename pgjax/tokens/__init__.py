"""Tokenisers: text to arrays of token numbers and back.

`bytes_` needs nothing and loses nothing; `alphabet` makes small vocabularies, which exact computations need.
"""

from pgjax.tokens.tokeniser import Tokeniser, alphabet, bytes_

__all__ = ["Tokeniser", "alphabet", "bytes_"]
