#include "agent_image.h"

/* EDM_AGENT_OBJECT and EDM_ASKING_OBJECT are the paths of the built objects; see CMakeLists.txt. */
__asm__(".section .rodata\n"
        ".global agent_image\n"
        ".global agent_image_end\n"
        ".global agent_asking_image\n"
        ".global agent_asking_image_end\n"
        ".balign 16\n"
        "agent_image:\n"
        ".incbin \"" EDM_AGENT_OBJECT "\"\n"
        "agent_image_end:\n"
        ".byte 0\n"
        ".balign 16\n"
        "agent_asking_image:\n"
        ".incbin \"" EDM_ASKING_OBJECT "\"\n"
        "agent_asking_image_end:\n"
        ".byte 0\n"
        ".previous\n");

extern const char agent_image_end[], agent_asking_image_end[];

size_t agent_image_bytes(void)
{
    return (size_t)(agent_image_end - agent_image);
}

size_t agent_asking_image_bytes(void)
{
    return (size_t)(agent_asking_image_end - agent_asking_image);
}
