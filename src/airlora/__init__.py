"""AirLoRA: fine-tune LoRA adapters in the cloud and send them over the air to an edge model."""

__version__ = "0.1.0"
