"""What the Python targets share: a package that stands alone, and a program as the text of a function."""
