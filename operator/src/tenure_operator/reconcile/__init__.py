"""One reconciler for each kind that users write: observe, decide (pure), act, report."""
