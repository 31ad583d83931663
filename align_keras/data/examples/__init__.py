"""One reader of images with captions or a class, whatever they are kept in."""
