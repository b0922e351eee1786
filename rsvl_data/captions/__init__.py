"""Captions by rule: true by counting, measuring or reading metadata, in varied and correct English.

    stages = [
        label_sentences(),                      # "A bird's-eye view of an airport."
        object_sentences(),                     # "Two bridges and one ship, seen from overhead." "Both bridges are in the left half."
        land_cover_sentences(source.mask),      # "Seen from above, the scene is mostly forest." "Water covers about a fifth of it."
        metadata_sentences(preset="rs5m"),      # "A summer view of an airport near Ankara in Türkiye." "The off-nadir angle is 27.80°."
        compose_captions(budget_tokens=77),     # what is worth most of these, in whole sentences, within CLIP's context
    ]

The wording follows from the seed and the sample's key alone. A fact that the record does not hold is not said.
"""
