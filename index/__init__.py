"""The live vector index: items and vectors in, nearest items out. No Kafka, no model."""
