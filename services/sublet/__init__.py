"""
sublet: fine-tune models on data that stays in its owner's bucket, and prove that the access ended.
"""
