"""A recipe turned into the objects that training works on, and its phases counted in steps."""
