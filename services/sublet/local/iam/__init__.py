"""Who is calling, what they may do, and until when: the part that no other emulator has."""
