"""An index of images, how it is asked, and its page. How models embed is not here."""
