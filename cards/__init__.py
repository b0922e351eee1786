"""Pages about models and data, with numbers that come from result files alone."""
