"""Model families: what each ``model_type`` of Hugging Face means in layers."""
