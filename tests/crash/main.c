/* main.c: the crash lab's command line; tests/README.md says how it is used.
 *   crash lab [--fs ext4|xfs] [--cold ext4|xfs] [--points N] [--seed S] [--control
 * sync|file|directory]
 *             [--repair] [--dir DIR] [--name NAME] [--write COMMAND --check COMMAND]
 *                                               0: nothing lost; 1: else; 77: host cannot
 *   crash with [--fs …] [--dir …] --write COMMAND   a command on a disk that can fail; its status
 *   crash self                                    the disk itself keeps its promises
 *   crash write, check, spoil, mend               what the lab starts itself (writer.h, repair.h)
 */
#include "tests/crash/device_test.h"
#include "tests/crash/host.h"
#include "tests/crash/host_test.h"
#include "tests/crash/lab.h"
#include "tests/crash/repair.h"
#include "tests/crash/writer.h"

#include <stdio.h>
#include <stdlib.h>

#define EXT4_BYTES (96ull << 20)
#define XFS_BYTES  (320ull << 20) /* mkfs.xfs makes none below 300 MB */

static const char *value_of(int count, char **values, int *at)
{
    if (*at + 1 >= count) {
        fprintf(stderr, "%s needs a value\n", values[*at]);
        exit(2);
    }
    return values[++*at];
}

static uint64_t bytes_for(const char *filesystem)
{
    return strcmp(filesystem, "xfs") == 0 ? XFS_BYTES : EXT4_BYTES;
}

static struct lab_options options_of(int count, char **values)
{
    struct lab_options options = {
        .filesystem = "ext4", .points = 100, .seed = 1, .directory = "out/crash/lab"};
    for (int i = 2; i < count; i++) {
        const char *key = values[i];
        if (strcmp(key, "--fs") == 0)
            options.filesystem = value_of(count, values, &i);
        else if (strcmp(key, "--cold") == 0)
            options.cold = value_of(count, values, &i);
        else if (strcmp(key, "--points") == 0)
            options.points = strtoull(value_of(count, values, &i), NULL, 10);
        else if (strcmp(key, "--seed") == 0)
            options.seed = strtoull(value_of(count, values, &i), NULL, 10);
        else if (strcmp(key, "--dir") == 0)
            options.directory = value_of(count, values, &i);
        else if (strcmp(key, "--name") == 0)
            options.name = value_of(count, values, &i);
        else if (strcmp(key, "--write") == 0)
            options.write = value_of(count, values, &i);
        else if (strcmp(key, "--check") == 0)
            options.check = value_of(count, values, &i);
        else if (strcmp(key, "--repair") == 0)
            options.repair = true;
        else if (strcmp(key, "--control") == 0)
            options.control = skip_parse(value_of(count, values, &i));
        else {
            fprintf(stderr, "unknown: %s\n", key);
            exit(2);
        }
    }
    if (options.control == SKIP_COUNT) {
        fprintf(stderr, "--control sync, file, directory, move or copy\n");
        exit(2);
    }
    options.self = values[0];
    options.name = options.name == NULL ? options.filesystem : options.name;
    options.disk_bytes = bytes_for(options.filesystem);
    options.cold_bytes = options.cold == NULL ? 0 : bytes_for(options.cold);
    return options;
}

int main(int count, char **values)
{
    const char *what = count > 1 ? values[1] : "";
    if (strcmp(what, "write") == 0)
        return writer_write();
    if (strcmp(what, "spoil") == 0)
        return writer_repair();
    if (strcmp(what, "mend") == 0)
        return repair_check();
    if (strcmp(what, "check") == 0)
        return writer_check();
    if (strcmp(what, "self") == 0)
        return device_test() + (host_missing() == NULL ? host_test() : 0);
    bool lab = strcmp(what, "lab") == 0;
    if (!lab && strcmp(what, "with") != 0) {
        fprintf(stderr, "crash lab|with|self (tests/crash/main.c)\n");
        return 2;
    }
    struct lab_options options = options_of(count, values);
    const char *missing = host_missing();
    if (missing != NULL) {
        printf("skipped: no %s here\n", missing);
        return LAB_SKIPPED;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (getenv("CRASH_RECORDS") == NULL)
        setenv("CRASH_RECORDS", "2400", 1);
    if (lab)
        return lab_run(&options);
    return lab_with(&options, options.write);
}
