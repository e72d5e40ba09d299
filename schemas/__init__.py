"""What crosses a boundary: messages on Kafka topics, topic names, settings, SQL tables. Imports nothing of ours."""
