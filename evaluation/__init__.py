"""What an encoder or a segmenter is worth. Measures, never trains, never selects."""
