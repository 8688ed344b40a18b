/* io_uring_file.c: writes with sync, and reads, on bank 0.
 *
 * A write with sync is WRITE linked to FSYNC(DATASYNC). The kernel begins the sync when this thread
 * is in it next after the write's completion: in io_poll or io_file_advance. A short write breaks
 * the link: the sync comes back cancelled and both are submitted again for the rest. op->flags
 * counts what is with the kernel; the answer is given when both have completed, and both results
 * count. A failed sync is never tried again (the page cache may have dropped the data). What lies
 * in the pinned region goes out as a fixed buffer: the kernel then neither looks up nor counts its
 * pages each time. */
#include "core/io_uring.h"

#include "core/errno.h"

enum file_flag {
    FILE_OP_SYNC = 1,        /* asked for */
    FILE_OP_WRITE_ARMED = 2, /* with the kernel */
    FILE_OP_SYNC_ARMED = 4,
    FILE_OP_SYNCED = 8, /* a sync after the last write succeeded */
};

static bool is_pinned(const struct io *io, const uint8_t *data, size_t size)
{
    return io->pinned != NULL && data >= io->pinned && size <= io->pinned_size &&
           (size_t)(data - io->pinned) <= io->pinned_size - size;
}

static void transfer_submit(struct io *io, struct io_file_op *op, enum op kind)
{
    struct bank *bank = &io->banks[0];
    size_t left = op->size - op->done_bytes;
    uint32_t length = left > INT32_MAX ? INT32_MAX / 4096 * 4096 : (uint32_t)left;
    uint64_t payload = (uint64_t)(uintptr_t)op;
    bool last = length == left;
    bool sync = kind == OP_FILE_WRITE && (op->flags & FILE_OP_SYNC) != 0 && last;
    bank_reserve(bank, 2);
    struct io_uring_sqe *sqe = bank_sqe(bank);
    if (kind == OP_FILE_WRITE && is_pinned(io, op->data, op->size))
        io_uring_prep_write_fixed(sqe, op->fd, op->data + op->done_bytes, length,
                                  op->offset + op->done_bytes, 0);
    else if (kind == OP_FILE_WRITE)
        io_uring_prep_write(sqe, op->fd, op->data + op->done_bytes, length,
                            op->offset + op->done_bytes);
    else
        io_uring_prep_read(sqe, op->fd, op->data + op->done_bytes, length,
                           op->offset + op->done_bytes);
    io_uring_sqe_set_data64(sqe, user_data_of(kind, payload));
    op->flags |= FILE_OP_WRITE_ARMED;
    if (!sync)
        return;
    sqe->flags |= IOSQE_IO_LINK;
    sqe = bank_sqe(bank);
    io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data64(sqe, user_data_of(OP_FILE_SYNC, payload));
    op->flags |= FILE_OP_SYNC_ARMED;
}

static enum err file_start(struct io *io, struct io_file_op *op, enum op kind)
{
    CHECK(((uint64_t)(uintptr_t)op & ~PAYLOAD_MASK) == 0);
    if (io->files_inflight >= io->options.files_max)
        return ERR_FULL;
    io->files_inflight++;
    transfer_submit(io, op, kind);
    return OK;
}

enum err io_file_write(struct io *io, struct io_file_op *op, int fd, uint64_t offset,
                       struct bytes data, bool sync)
{
    CHECK(data.size > 0);
    op->fd = fd;
    op->data = (uint8_t *)(uintptr_t)data.data; /* only read from */
    op->size = data.size;
    op->offset = offset;
    op->err = OK;
    op->done_bytes = 0;
    op->flags = sync ? FILE_OP_SYNC : 0;
    return file_start(io, op, OP_FILE_WRITE);
}

enum err io_file_read(struct io *io, struct io_file_op *op, int fd, uint64_t offset, uint8_t *data,
                      size_t size)
{
    CHECK(size > 0);
    op->fd = fd;
    op->data = data;
    op->size = size;
    op->offset = offset;
    op->err = OK;
    op->done_bytes = 0;
    op->flags = 0;
    return file_start(io, op, OP_FILE_READ);
}

void io_file_submit(struct io *io)
{
    bank_submit(&io->banks[0]);
}

void io_file_advance(struct io *io)
{
    if (io->files_inflight != 0)
        bank_run(&io->banks[0]);
}

static bool file_done(struct io *io, struct io_file_op *op, struct io_event *event)
{
    io->files_inflight--;
    memset(event, 0, sizeof *event);
    event->kind = IO_FILE_DONE;
    event->err = op->err;
    event->owner = op->owner;
    event->op = op;
    return true;
}

bool file_on_completion(struct io *io, enum op kind, struct io_file_op *op, int res,
                        struct io_event *event)
{
    bool again = res == -EINTR || res == -EAGAIN;
    if (kind == OP_FILE_SYNC) {
        op->flags &= ~(uint32_t)FILE_OP_SYNC_ARMED;
        if (res == 0)
            op->flags |= FILE_OP_SYNCED;
        else if (res != -ECANCELED && op->err == OK)
            op->err = again ? ERR_IO : err_from_errno(-res); /* never tried again */
    } else {
        op->flags &= ~(uint32_t)FILE_OP_WRITE_ARMED;
        if (res > 0)
            op->done_bytes += (size_t)res;
        else if (res == 0 && kind == OP_FILE_WRITE)
            op->err = ERR_IO; /* a write that writes nothing would go on for ever */
        else if (res < 0 && !again)
            op->err = err_from_errno(-res);
    }
    if ((op->flags & (FILE_OP_WRITE_ARMED | FILE_OP_SYNC_ARMED)) != 0)
        return false;
    bool end = kind == OP_FILE_READ && res == 0;
    if (op->err == OK && op->done_bytes < op->size && !end) {
        transfer_submit(io, op, kind == OP_FILE_READ ? OP_FILE_READ : OP_FILE_WRITE);
        return false;
    }
    /* all written, yet the sync was cancelled: it did not run, so the write is not durable */
    if (op->err == OK && (op->flags & FILE_OP_SYNC) != 0 && (op->flags & FILE_OP_SYNCED) == 0)
        op->err = ERR_IO;
    return file_done(io, op, event);
}

enum err io_file_pin(struct io *io, uint8_t *data, size_t size)
{
    if (io->pinned != NULL)
        return ERR_FULL;
    const struct iovec region = {data, size};
    if (io_uring_register_buffers(&io->banks[0].ring, &region, 1) != 0)
        return ERR_UNSUPPORTED;
    io->pinned = data;
    io->pinned_size = size;
    return OK;
}

void io_file_unpin(struct io *io, const uint8_t *data)
{
    if (data == NULL || io->pinned != data)
        return;
    (void)io_uring_unregister_buffers(&io->banks[0].ring); /* else with the ring */
    io->pinned = NULL;
}
