"""A run as tasks: its flow, its inputs, what names a result, what an earlier run gives."""
