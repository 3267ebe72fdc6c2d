"""Did it help? Models trained on what a run made, and on what it might have been instead."""
