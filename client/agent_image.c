#include "agent_image.h"

/* EDM_AGENT_OBJECT is the path of the built object; see CMakeLists.txt. */
__asm__(".section .rodata\n"
        ".global agent_image\n"
        ".global agent_image_end\n"
        ".balign 16\n"
        "agent_image:\n"
        ".incbin \"" EDM_AGENT_OBJECT "\"\n"
        "agent_image_end:\n"
        ".byte 0\n"
        ".previous\n");

extern const char agent_image_end[];

size_t agent_image_bytes(void)
{
    return (size_t)(agent_image_end - agent_image);
}
