"""The names of a batch's fields."""

#: What a text tower takes, int32, ``(batch, sequence)``.
TEXT_INPUTS = ("token_ids", "segment_ids", "padding_mask")
#: What a backbone takes.
MODEL_INPUTS = ("images", *TEXT_INPUTS)
