"""Many sessions in one sidecar: one journal, key and workspace each, and one of all that belongs to the pod."""
