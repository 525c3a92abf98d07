"""Where plain data becomes tensors."""
