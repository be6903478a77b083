"""From the bytes of a dataset to packed rows of token ids."""
