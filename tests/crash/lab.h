/* lab.h: record a load once, cut the power many times, check what is there.
 * Flow:       main.c → here → device.h, serve.h, hands.h; the load and the check are processes
 * Failure:    1, with what was lost, where (seed, point, survival) and the saved image
 * Bounds:     one point takes about a mount, a recovery and an unmount: 60 to 90 ms of CPU */
#ifndef TESTS_CRASH_LAB_H
#define TESTS_CRASH_LAB_H

#include "tests/crash/phase.h"

struct lab_options {
    const char *filesystem; /* "ext4", "xfs" */
    const char *cold;       /* the same for the cold directory, on a disk of its own; NULL: none */
    const char *name;       /* for messages and directories */
    const char *write;      /* shell command; NULL: writer_write */
    const char *check;      /* NULL: writer_check */
    bool repair;            /* repair_write and repair_check instead of these */
    char *self;             /* our own binary */
    const char *directory;  /* scratch */
    uint64_t disk_bytes;
    uint64_t cold_bytes;
    uint64_t points;
    uint64_t seed;
    enum skip control; /* a negative control: 99 of 100 points must lose */
};

#define LAB_LACKING                                                                                \
    75 /* something never happened while the load was recorded: it may another time */
#define LAB_SKIPPED 77 /* this host has no FUSE, no loop devices or no such file system for us */

/* lab_run: 0: nothing lost (or, the control: enough); 1: else; LAB_LACKING, LAB_SKIPPED. */
int lab_run(const struct lab_options *options);
/* lab_with: run a command with CRASH_MOUNT on such a disk and CRASH_CONTROL; its status, or
 * LAB_SKIPPED. */
int lab_with(const struct lab_options *options, const char *command);

#endif
