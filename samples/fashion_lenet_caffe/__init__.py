"""LeNet on Fashion-MNIST, a Caffe pair, through the automatic NUQ search."""
