"""What the data looks like: observers that stream it, and the clip ranges that follow from them."""
