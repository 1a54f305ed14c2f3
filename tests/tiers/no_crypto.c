// Hides AES, PMULL, SHA-1 and SHA-2 from detection at run time on aarch64, where every model that QEMU knows has them.
// Preloaded; aarch64.py compiles it.
#define _GNU_SOURCE
#include <dlfcn.h>

enum { HWCAP = 16 }; // AT_HWCAP of getauxval(3)
static const unsigned long CRYPTO = 1ul << 3 | 1ul << 4 | 1ul << 5 | 1ul << 6;

unsigned long getauxval(unsigned long type) {
    static unsigned long (*real)(unsigned long);
    if (!real) real = (unsigned long (*)(unsigned long))dlsym(RTLD_NEXT, "getauxval");
    unsigned long value = real(type);
    return type == HWCAP ? value & ~CRYPTO : value;
}
