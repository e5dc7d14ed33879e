"""The Multispectral Action Dataset: infrared and visible sequences, alone, together or fused."""
