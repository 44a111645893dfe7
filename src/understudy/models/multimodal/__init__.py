"""Models of more than one modality: CLIP and aligners of frozen towers."""
