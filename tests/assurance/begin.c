// Loaded behind LeakSanitizer, which takes over `signal` and the like, and makes them work with the first allocation: the
// standard library of Rust calls one of them before it allocates anything.
#include <stdlib.h>

static void __attribute__((constructor)) begin(void) {
  free(malloc(1));
}
