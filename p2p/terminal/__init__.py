"""What a person sees: the line editor and the screens."""
