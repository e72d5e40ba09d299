"""The model and how it learns: arrays and tensors in, arrays and tensors out. No Kafka, no SQL, no asyncio."""
