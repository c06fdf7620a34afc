"""What is written and checked of the documentation: pages of figures, blocks, the reference, links, and the site."""
