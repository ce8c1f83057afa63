"""One module a verb of `lora-jobs`, for people; heavy imports stay inside the functions."""
