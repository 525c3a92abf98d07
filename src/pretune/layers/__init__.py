"""Building blocks that encoders and heads share."""
