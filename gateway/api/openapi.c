/* openapi.c: openapi.json inside the binary, put there by the assembler (the Makefile names the
 * dependency). Labels are global so that link-time optimisation may split this file. */
#include "gateway/api/rest.h"

__asm__(".pushsection .rodata\n"
        ".global openapi_begin\n"
        ".global openapi_end\n"
        "openapi_begin:\n"
        ".incbin \"gateway/api/openapi.json\"\n"
        "openapi_end:\n"
        ".byte 0\n"
        ".popsection\n");

extern const uint8_t openapi_begin[];
extern const uint8_t openapi_end[];

struct bytes openapi_document(void)
{
    /* cppcheck-suppress comparePointers ; two ends of one embedded file */
    return bytes_of(openapi_begin, (size_t)(openapi_end - openapi_begin));
}
