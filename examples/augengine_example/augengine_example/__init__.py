"""Motion ghosts for augengine: an edit that makes them and a gate that measures them."""
