/* Adds one to a number in a lock's value block, as often as it is told, with Debian's <libdlm.h>: programs on all nodes must lose none. */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libdlm.h>

#define MUST(what) do { if (!(what)) { fprintf(stderr, "%s:%d: %s (errno %d, status %d)\n", __FILE__, __LINE__, #what, errno, lksb.sb_status); exit(1); } } while (0)

int main(int argc, char **argv)
{
	struct dlm_lksb lksb = { 0 };
	char value[DLM_LVB_LEN] = { 0 };
	int rounds = atoi(argv[1]);
	uint32_t number;
	dlm_lshandle_t space = dlm_create_lockspace("counter", 0600);
	MUST(argc == 2 && space);
	MUST(dlm_ls_pthread_init(space) == 0);
	lksb.sb_lvbptr = value;
	MUST(dlm_ls_lock_wait(space, LKM_NLMODE, &lksb, 0, "number", 6, 0, NULL, NULL, NULL) == 0 && lksb.sb_status == 0);
	while (rounds-- > 0) {
		MUST(dlm_ls_lock_wait(space, LKM_EXMODE, &lksb, LKF_CONVERT | LKF_VALBLK, NULL, 0, 0, NULL, NULL, NULL) == 0);
		MUST(lksb.sb_status == 0 && lksb.sb_flags == 0);
		memcpy(&number, value, sizeof number);
		number++;
		memcpy(value, &number, sizeof number);
		MUST(dlm_ls_lock_wait(space, LKM_NLMODE, &lksb, LKF_CONVERT | LKF_VALBLK, NULL, 0, 0, NULL, NULL, NULL) == 0);
	}
	MUST(dlm_ls_lock_wait(space, LKM_CRMODE, &lksb, LKF_CONVERT | LKF_VALBLK, NULL, 0, 0, NULL, NULL, NULL) == 0);
	memcpy(&number, value, sizeof number);
	MUST(dlm_ls_lock_wait(space, LKM_NLMODE, &lksb, LKF_CONVERT, NULL, 0, 0, NULL, NULL, NULL) == 0);
	printf("%u\n", number);
	fflush(stdout);
	/* The null lock keeps the number until everybody has read it. */
	getchar();
	return 0;
}
