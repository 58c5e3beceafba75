"""Many files: sources, output paths, jobs, and the read, upscale and write pipeline."""
