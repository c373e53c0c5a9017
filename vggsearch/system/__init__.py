"""What the machine and the installation offer, and their limits: the ground the other packages stand on."""
