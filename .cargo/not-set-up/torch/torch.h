// Found only when there is no libtorch where LIBTORCH points to: see config.toml. A missing header
// stops the compiler at once; after #error it would go on to a thousand errors more.
#include "libtorch is missing: run scripts/setup first"
