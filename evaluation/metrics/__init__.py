"""What the numbers mean: pure functions of arrays, no model, no file, no rounding."""
