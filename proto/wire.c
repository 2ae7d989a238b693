#include "wire.h"

#include "xxh3.h"

uint64_t wire_checksum(uint64_t page, const void *bytes, size_t len_bytes)
{
    return XXH3_64bits_withSeed(bytes, len_bytes, page);
}

const char *wire_status_name(uint8_t status)
{
    switch (status) {
    case WIRE_OK:
        return "OK";
    case WIRE_INVALID_ARGUMENT:
        return "INVALID_ARGUMENT";
    case WIRE_DEADLINE_EXCEEDED:
        return "DEADLINE_EXCEEDED";
    case WIRE_NOT_FOUND:
        return "NOT_FOUND";
    case WIRE_ALREADY_EXISTS:
        return "ALREADY_EXISTS";
    case WIRE_PERMISSION_DENIED:
        return "PERMISSION_DENIED";
    case WIRE_RESOURCE_EXHAUSTED:
        return "RESOURCE_EXHAUSTED";
    case WIRE_FAILED_PRECONDITION:
        return "FAILED_PRECONDITION";
    case WIRE_ABORTED:
        return "ABORTED";
    case WIRE_UNIMPLEMENTED:
        return "UNIMPLEMENTED";
    case WIRE_INTERNAL:
        return "INTERNAL";
    case WIRE_UNAVAILABLE:
        return "UNAVAILABLE";
    case WIRE_DATA_LOSS:
        return "DATA_LOSS";
    case WIRE_UNAUTHENTICATED:
        return "UNAUTHENTICATED";
    default:
        return "UNKNOWN";
    }
}

const char *wire_method_name(uint8_t method)
{
    switch (method) {
    case WIRE_HELLO:
        return "HELLO";
    case WIRE_OPEN:
        return "OPEN";
    case WIRE_PAGE_GET:
        return "PAGE_GET";
    case WIRE_PAGE_PUT:
        return "PAGE_PUT";
    case WIRE_PAGE_DROP:
        return "PAGE_DROP";
    case WIRE_FREEZE:
        return "FREEZE";
    case WIRE_BRANCH:
        return "BRANCH";
    case WIRE_LIST:
        return "LIST";
    case WIRE_STAT:
        return "STAT";
    case WIRE_REMOVE:
        return "REMOVE";
    default:
        return "UNKNOWN";
    }
}
