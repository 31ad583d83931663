"""Images and captions to model inputs. Where they are read from is not here."""
