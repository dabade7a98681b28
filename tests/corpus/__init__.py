"""Files made to do harm, for tests of everything that takes files from strangers."""
