/* lab.c: see lab.h; points.c draws the points. One point in eight is cut again somewhere in the
 * writes of its own recovery, and of all that a check does afterwards, and checked once more.
 *
 * xfs notices a metadata block of its own that is torn inside, and then does not mount (EBADMSG,
 * EUCLEAN); that is its promise, not ours. A point that does not mount is repeated with whole
 * blocks, must mount then, and is counted: more than chance makes of one in twenty (three standard
 * deviations) fail the lab, or a disk of ours that breaks its promises could hide there. */
#include "tests/crash/lab.h"

#include "tests/crash/hands.h"
#include "tests/crash/points.h"
#include "tests/crash/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define FAILURES_SHOWN 3u
#define AGAIN_EVERY    8u
#define CONTROL_LOSES  99u /* of 100 */
#define UNENDED        -1  /* status of a check */
#define UNMOUNTED      -2  /* … the disk did not mount */
#define TORN_EVERY     20u /* of points need whole blocks, at most */

static const char first_cut[] = "first-cut";
static const char second_cut[] = "second-cut";

struct lab {
    const struct lab_options *options;
    struct device device;
    struct serve *serve;
    struct hands hands;
    char served[HOST_PATH_BYTES];
    char control[HOST_PATH_BYTES];
    char output[HOST_PATH_BYTES];
    struct point *points;
    uint64_t random;
    uint64_t again;
    uint64_t torn; /* points repeated with whole blocks */
    uint64_t lost;
    uint64_t bad;
};

static void path_of(char out[HOST_PATH_BYTES], const char *directory, const char *name)
{
    CHECK(snprintf(out, HOST_PATH_BYTES, "%s/%s", directory, name) < HOST_PATH_BYTES);
}

/* ---- setting up */

/* add_disk: false: its directory cannot be made. */
static bool add_disk(struct lab *lab, const char *filesystem, const char *served,
                     const char *mounted, const char *variable)
{
    struct hands_disk *disk = &lab->hands.disks[lab->hands.count++];
    disk->filesystem = filesystem;
    path_of(disk->file, lab->options->directory, served);
    path_of(disk->mounted, lab->options->directory, mounted);
    setenv(variable, disk->mounted, 1);
    return host_directory(disk->mounted);
}

static bool lab_start(struct lab *lab)
{
    const struct lab_options *options = lab->options;
    path_of(lab->served, options->directory, "served");
    path_of(lab->control, options->directory, "served/control");
    path_of(lab->output, options->directory, "output");
    lab->random = (options->seed + 1) * 0x9e3779b97f4a7c15ull | 1;
    device_init(&lab->device, options->disk_bytes + options->cold_bytes, options->disk_bytes);
    if (!host_private() || !host_directory(options->directory) || !host_directory(lab->served) ||
        !add_disk(lab, options->filesystem, "served/disk", "mounted", "CRASH_MOUNT") ||
        (options->cold != NULL &&
         !add_disk(lab, options->cold, "served/cold", "mounted-cold", "CRASH_COLD")))
        return false;
    lab->serve = serve_start(&lab->device, lab->served);
    if (lab->serve == NULL)
        return false;
    setenv("CRASH_CONTROL", lab->control, 1);
    setenv("CRASH_SCRATCH", options->directory, 1);
    return hands_start(&lab->hands, lab->serve, &lab->device) && hands_mkfs(&lab->hands) &&
           hands_mount(&lab->hands, false);
}

static void lab_stop(struct lab *lab)
{
    hands_stop(&lab->hands);
    serve_stop(lab->serve);
    device_deinit(&lab->device);
    free(lab);
}

/* run: a shell command, or one of our own words. */
static int run(struct lab *lab, const char *command, const char *own, const char *const variables[],
               const char *output)
{
    char *const of_own[] = {lab->options->self, (char *)(uintptr_t)own, NULL};
    char *const of_shell[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
                              (char *)(uintptr_t)command, NULL};
    return hands_run(&lab->hands, command == NULL ? of_own : of_shell, variables, output);
}

/* ---- recording */

static void show_output(const struct lab *lab)
{
    char line[512];
    FILE *file = fopen(lab->output, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        printf("    | %s", line);
    if (file != NULL)
        fclose(file);
}

static size_t count_of(const struct device_log *log, enum device_event_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < log->count; i++)
        count += log->events[i].kind == kind;
    return count;
}

static bool record(struct lab *lab)
{
    char skip[40];
    const char *const variables[] = {skip, NULL};
    snprintf(skip, sizeof skip, "CRASH_SKIP=%s", skip_name(lab->options->control));
    device_begin(&lab->device);
    int status = run(lab, lab->options->write, lab->options->repair ? "spoil" : "write", variables,
                     lab->output);
    device_end(&lab->device);
    if (status != 0) {
        printf("%s: the load ended with %d, its output:\n", lab->options->name, status);
        show_output(lab);
        (void)hands_unmount(&lab->hands);
        return false;
    }
    const struct device_log *log = &lab->device.record;
    printf("%s: recorded %zu writes, %zu flushes, %zu marks\n", lab->options->name,
           count_of(log, DEVICE_WRITE), count_of(log, DEVICE_FLUSH), count_of(log, DEVICE_MARK));
    if (lab->options->write == NULL)
        show_output(lab);
    return hands_unmount(&lab->hands);
}

/* ---- points */

/* check: the status of the check on what is served now; UNMOUNTED; UNENDED. direct: what it writes
 * need not be remembered. */
static int check(struct lab *lab, const struct point *point, bool again, bool direct)
{
    char seed[40];
    char mark[MARK_BYTES + 16];
    const char *const variables[] = {seed, mark, again ? "CRASH_AGAIN=1" : "CRASH_AGAIN=0", NULL};
    snprintf(seed, sizeof seed, "CRASH_SEED=%" PRIu64, point->seed);
    snprintf(mark, sizeof mark, "CRASH_MARK=%s", point->mark);
    int status = UNMOUNTED;
    if (hands_mount(&lab->hands, direct)) {
        status = run(lab, lab->options->check, lab->options->repair ? "mend" : "check", variables,
                     lab->output);
        status = hands_unmount(&lab->hands) ? status : UNENDED;
    }
    if (direct)
        device_compare(&lab->device);
    return status;
}

static void report(struct lab *lab, const struct point *point, int status, const char *when)
{
    static const char *const names[DEVICE_SURVIVAL_COUNT] = {
        [DEVICE_NONE] = "none",        [DEVICE_ALL] = "all",   [DEVICE_RANDOM] = "random",
        [DEVICE_FEW] = "few",          [DEVICE_MOST] = "most", [DEVICE_TORN] = "torn",
        [DEVICE_TORN_ANY] = "torn_any"};
    lab->lost += status == CHECK_LOST;
    lab->bad += status != CHECK_LOST && status != CHECK_KEPT;
    if (status == CHECK_KEPT || lab->options->control != SKIP_NONE ||
        lab->lost + lab->bad > FAILURES_SHOWN)
        return;
    char image[HOST_PATH_BYTES];
    path_of(image, lab->options->directory, when);
    const char *verdict = status == CHECK_LOST  ? "LOST"
                          : status == UNMOUNTED ? "it does not mount"
                          : status == UNENDED   ? "the check did not end"
                                                : "BAD";
    printf("%s: cut after event %zu (%s survive, seed %" PRIu64 ", mark '%s'), %s: %s\n",
           lab->options->name, point->at, names[point->survival], point->seed, point->mark, when,
           verdict);
    if (status != UNMOUNTED)
        show_output(lab);
    if (when == second_cut)
        device_cut_again(&lab->device, point->at, point->survival, point->seed, point->second,
                         point->second_seed);
    else
        (void)device_cut(&lab->device, point->at, point->survival, point->seed);
    if (device_save(&lab->device, image))
        printf("    its disk: %s\n", image);
}

/* try_cuts: cut, check; and again, if wanted. */
static int try_cuts(struct lab *lab, struct point *point, bool again, const char **when)
{
    *when = first_cut;
    point->mark = device_cut(&lab->device, point->at, point->survival, point->seed);
    int status = check(lab, point, false, !again);
    if (!again || status != CHECK_KEPT)
        return status;
    *when = second_cut;
    point->second = points_random(&lab->random, device_keep(&lab->device) + 1);
    point->second_seed = points_random(&lab->random, 1u << 30);
    device_cut_again(&lab->device, point->at, point->survival, point->seed, point->second,
                     point->second_seed);
    return check(lab, point, true, true);
}

static void try_point(struct lab *lab, struct point *point, bool again)
{
    const char *when;
    int status = try_cuts(lab, point, again, &when);
    if (status == UNMOUNTED) {
        lab->torn++;
        device_tear(&lab->device, true);
        status = try_cuts(lab, point, again, &when);
    }
    lab->again += again;
    report(lab, point, status, when);
    device_tear(&lab->device, false);
}

/* torn_fair: so many as one in TORN_EVERY or fewer may give: they are within three standard
 * deviations of it, which are about three times its root. */
static bool torn_fair(uint64_t torn, uint64_t points)
{
    uint64_t beyond = torn * TORN_EVERY > points ? torn * TORN_EVERY - points : 0;
    return beyond * beyond <= 9 * points * TORN_EVERY;
}

static bool verdict(const struct lab *lab)
{
    const struct lab_options *options = lab->options;
    uint64_t points = options->points;
    if (options->control == SKIP_NONE) {
        printf("%s: %" PRIu64 " points, %" PRIu64 " cut again while recovering: %" PRIu64
               " lost something acknowledged, %" PRIu64
               " did not start or served nonsense; %" PRIu64
               " did not mount until blocks were whole\n",
               options->name, points, lab->again, lab->lost, lab->bad, lab->torn);
        bool fair = points_table(lab->points, points, options->name, options->repair);
        return lab->lost == 0 && lab->bad == 0 && torn_fair(lab->torn, points) && fair;
    }
    uint64_t lose = lab->lost + lab->bad;
    bool good = lose * 100 >= points * CONTROL_LOSES;
    printf("%s: without %s %" PRIu64 " of %" PRIu64 " points lose%s\n", options->name,
           skip_says(options->control), lose, points,
           good ? "" : ": the lab does not see what it must see");
    return good;
}

static int skipped(const struct lab *lab)
{
    printf("skipped: no %s on a loop device over FUSE for us here (the reason is above)\n",
           lab->options->filesystem);
    return LAB_SKIPPED;
}

int lab_run(const struct lab_options *options)
{
    struct lab *lab = calloc(1, sizeof *lab);
    CHECK(lab != NULL);
    lab->options = options;
    if (!lab_start(lab))
        return skipped(lab);
    if (!record(lab))
        return 1;
    const char *lacking = points_lacking(&lab->device.record, options->repair);
    if (options->control == SKIP_NONE && lacking != NULL) {
        printf("%s: no '%s' in this recording\n", options->name, lacking);
        lab_stop(lab);
        return LAB_LACKING;
    }
    lab->points = points_draw(&lab->device.record, options->points, options->control,
                              options->cold != NULL, &lab->random);
    for (uint64_t i = 0; i < options->points && lab->points != NULL; i++)
        try_point(lab, &lab->points[i], i % AGAIN_EVERY == 0 && options->control == SKIP_NONE);
    bool good = lab->points != NULL && verdict(lab);
    free(lab->points);
    lab_stop(lab);
    return good ? 0 : 1;
}

int lab_with(const struct lab_options *options, const char *command)
{
    struct lab *lab = calloc(1, sizeof *lab);
    CHECK(lab != NULL);
    lab->options = options;
    if (!lab_start(lab))
        return skipped(lab);
    const char *const variables[] = {NULL};
    int status = run(lab, command, "", variables, NULL);
    if (!hands_unmount(&lab->hands))
        status = 2;
    lab_stop(lab);
    return status;
}
