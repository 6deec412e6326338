"""C at run time: the compiler, torch's OpenMP runtime, files that are kept between runs, and fixed functions in C."""
