"""The model and how it learns: arrays and tensors in, arrays and tensors out. No Kafka, no SQL, no asyncio."""

import os

# torch reads this before its first tensor: with it, large tensors lie in huge pages, which is worth a tenth of LEARN's
# speed and more in a large catalogue. Whoever runs us may say 0.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
