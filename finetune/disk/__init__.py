"""Files that are whole or not there, whatever is killed or full meanwhile."""
