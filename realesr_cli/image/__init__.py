"""Image files and their pixels: the only place that knows BGR, integers, EXIF and ICC."""
