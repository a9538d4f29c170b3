"""Text for next-token learning: files, two corpora, the split by document, windows of tokens, compressors.

read_documents | load_corpus ─► split_documents ─► make_windows ─► imitation.next_token_loss ─► training.fit
"""

from pgjax.datasets.text.compression import CompressedSizes, compressed_sizes, num_bytes
from pgjax.datasets.text.corpora import CorpusWord, basic_english, load_corpus, topics
from pgjax.datasets.text.documents import Document, Split, read_documents, split_documents
from pgjax.datasets.text.windows import Windows, make_windows, sentences

__all__ = [
    "CompressedSizes",
    "CorpusWord",
    "Document",
    "Split",
    "Windows",
    "basic_english",
    "compressed_sizes",
    "load_corpus",
    "make_windows",
    "num_bytes",
    "read_documents",
    "sentences",
    "split_documents",
    "topics",
]
