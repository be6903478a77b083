"""
A Pub/Sub that is not ours, such as Google's emulator, in our broker's place: started or found,
asked what it can do, and helped out where the rest of the stack would miss something.
"""
