"""Whether the numbers of a model can be trusted: checks that anyone can make on their own."""
