"""Names of classes and splits: which words name a split, and which names may mean the same class."""
