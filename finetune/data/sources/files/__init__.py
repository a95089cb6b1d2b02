"""Image files on disk: walking folders, recognising images, and building a source from paths."""
