/* marks.h: which MARKs of the linked code the simulator has reached. */
#ifndef TESTS_SIM_MARKS_H
#define TESTS_SIM_MARKS_H

#include "core/err.h"

/* marks_share: from here on this process and those that it forks count together; once. */
void marks_share(void);
/* marks_report: prints every mark with its count; returns how many were never reached. */
size_t marks_report(void);
/* marks_count: how often the mark of that name was reached. */
uint64_t marks_count(const char *name);

#endif
