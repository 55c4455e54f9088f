"""What the targets share whose step is that of one tensor."""
