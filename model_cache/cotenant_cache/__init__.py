"""The weight cache: model files on this node, and facts read from them."""
