"""Two bits a weight by fine-tuning with PyTorch: LeNet on Fashion-MNIST, and a network for CIFAR-10."""
