"""What layers have learned: filters, the crops that excite units most, maps of an image."""
