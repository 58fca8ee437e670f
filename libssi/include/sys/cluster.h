/* For programs that were written for OpenSSI's libcluster: the header has another place. */
#include <ssi/cluster.h>
