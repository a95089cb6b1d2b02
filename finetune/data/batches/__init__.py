"""Images put together: in which order, in which process, as what tensors."""
