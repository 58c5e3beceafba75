"""From a picture to a larger one: policy, tiles, engine, batches."""
