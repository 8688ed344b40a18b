/* errno.h: the one place where errno turns into enum err.
 * Flow:       core/io_uring*.c and core/file.c → here; nobody else includes it
 * Invariants: every errno that the calls used there can give is named; an unknown one is ERR_IO */
#ifndef CORE_ERRNO_H
#define CORE_ERRNO_H

#include "core/err.h"

#include <errno.h>

/* err_from_network_errno: what only sockets say. EIO, EREMOTEIO, EUCLEAN, EFAULT and EXDEV end here
 * too: ERR_IO. */
static inline MUST_USE enum err err_from_network_errno(int number)
{
    switch (number) {
    case EADDRINUSE:
    case EADDRNOTAVAIL:
        return ERR_ADDRESS;
    case ECONNRESET:
    case ECONNABORTED:
    case ECONNREFUSED:
    case EPIPE:
    case ENOTCONN:
    case ESHUTDOWN:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
    case ENETRESET:
    case ENONET:
    case EPROTO:
        return ERR_RESET;
    case ETIMEDOUT:
    case ETIME:
        return ERR_TIMEOUT;
    default:
        return ERR_IO;
    }
}

/* err_from_errno: number is positive, as in errno. EAGAIN (= EWOULDBLOCK) is ERR_AGAIN. */
static inline MUST_USE enum err err_from_errno(int number)
{
    switch (number) {
    case 0:
        return OK;
    case EAGAIN:
    case EINTR:
    case EINPROGRESS:
    case EALREADY:
        return ERR_AGAIN;
    case ECANCELED:
        return ERR_CANCELLED;
    case ENOENT:
    case ENOTDIR:
    case ENXIO:
    case ENODEV:
        return ERR_NOT_FOUND;
    case EEXIST:
    case ENOTEMPTY:
    case EISDIR:
        return ERR_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_DENIED;
    case EBUSY:
    case ETXTBSY:
    case EDEADLK:
        return ERR_BUSY;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case ENOMEM:
    case ENOBUFS:
        return ERR_NO_MEMORY;
    case EMFILE:
    case ENFILE:
        return ERR_NO_DESCRIPTORS;
    case EINVAL:
    case EILSEQ:
    case ENAMETOOLONG:
    case ELOOP:
    case EBADF:
    case ESPIPE:
    case EDOM:
        return ERR_INVALID;
    case EFBIG:
    case EOVERFLOW:
    case E2BIG:
    case EMSGSIZE:
        return ERR_TOO_BIG;
    case ENOSYS:
    case EOPNOTSUPP:
    case EAFNOSUPPORT:
    case EPROTONOSUPPORT:
    case ENOPROTOOPT:
    case ESOCKTNOSUPPORT:
        return ERR_UNSUPPORTED;
    default:
        return err_from_network_errno(number);
    }
}

#endif
