"""`benchmark(encoder, dataset, split, ...) -> Result`: one file a task. None of them trains or selects anything."""
