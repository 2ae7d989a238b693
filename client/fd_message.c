#include "fd_message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(FD_MESSAGE_FDS * sizeof(int))];
};

int fd_message_send(int connection, const void *from, size_t bytes, const int *fds, size_t nfds,
                    int flags)
{
    struct iovec vector = {(void *)from, bytes};
    union control control;
    memset(&control, 0, sizeof control);
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (nfds > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(header), fds, nfds * sizeof(int));
    }
    ssize_t sent = sendmsg(connection, &message, MSG_NOSIGNAL | flags);
    if (sent < 0)
        return -errno;
    return sent == (ssize_t)bytes ? 0 : -EPROTO;
}

static void take_fds(struct msghdr *message, int fds[FD_MESSAGE_FDS])
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header))
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
            size_t nfds = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(header),
                   (nfds < FD_MESSAGE_FDS ? nfds : FD_MESSAGE_FDS) * sizeof(int));
        }
}

int fd_message_receive(int connection, void *to, size_t bytes, int fds[FD_MESSAGE_FDS], int flags)
{
    struct iovec vector = {to, bytes};
    union control control;
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    for (int i = 0; i < FD_MESSAGE_FDS; i++)
        fds[i] = -1;
    ssize_t got;
    do {
        got = recvmsg(connection, &message, MSG_CMSG_CLOEXEC | flags);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    take_fds(&message, fds);
    if (got == (ssize_t)bytes)
        return 0;
    for (int i = 0; i < FD_MESSAGE_FDS; i++)
        if (fds[i] >= 0) {
            close(fds[i]);
            fds[i] = -1;
        }
    return got == 0 ? -ECONNRESET : -EPROTO;
}
