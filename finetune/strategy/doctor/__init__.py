"""The doctor: examines images for problems before anything is trained on them."""
