"""Which files an application has, and how they get to a computer whole."""
