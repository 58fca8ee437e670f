/* A program for Debian's <libdlm.h>, which knows nothing of us. Each argument names what it shall do; it ends with 0 if all was as it should be. */

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
#include <libdlm.h>

#define MUST(what) do { if (!(what)) { fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #what, errno); exit(1); } } while (0)
#define FAILS(number, what) do { errno = 0; MUST((what) == -1); MUST(errno == (number)); } while (0)

struct lock {
	struct dlm_lksb lksb;
	char value[DLM_LVB_LEN];
	int asts, basts;
};

static void ast(void *arg)
{
	struct lock *lock = arg;
	MUST(lock->lksb.sb_lkid != 0);
	MUST(lock->lksb.sb_status != EINPROG);
	lock->asts++;
}

static void bast(void *arg)
{
	((struct lock *)arg)->basts++;
}

static struct lock *fresh(void)
{
	struct lock *lock = calloc(1, sizeof *lock);
	lock->lksb.sb_lvbptr = lock->value;
	return lock;
}

/* Dispatches until the number at `count` is `wanted`. */
static void until_at(int line, int fd, int *count, int wanted)
{
	struct pollfd pollfd = { fd, POLLIN, 0 };
	while (*count < wanted) {
		if (poll(&pollfd, 1, 10000) != 1) {
			fprintf(stderr, "%s:%d: %d callbacks, not %d\n", __FILE__, line, *count, wanted);
			exit(1);
		}
		MUST(dlm_dispatch(fd) == 0);
	}
	MUST(*count == wanted);
}

#define until(fd, count, wanted) until_at(__LINE__, fd, count, wanted)

static int request(struct lock *lock, uint32_t mode, uint32_t flags, const char *name)
{
	return dlm_lock(mode, &lock->lksb, flags, name, name ? strlen(name) : 0, 0, ast, lock, bast, NULL);
}

static void granted(struct lock *lock, uint32_t mode, uint32_t flags, const char *name)
{
	int before = lock->asts;
	MUST(request(lock, mode, flags, name) == 0);
	until(dlm_get_fd(), &lock->asts, before + 1);
	MUST(lock->lksb.sb_status == 0);
}

static void unlocked(struct lock *lock)
{
	int before = lock->asts;
	MUST(dlm_unlock(lock->lksb.sb_lkid, 0, &lock->lksb, lock) == 0);
	until(dlm_get_fd(), &lock->asts, before + 1);
	MUST(lock->lksb.sb_status == EUNLOCK);
}

static void callbacks(void)
{
	struct lock *one = fresh(), *two = fresh();
	struct pollfd pollfd = { dlm_get_fd(), POLLIN, 0 };
	MUST(pollfd.fd >= 0);
	MUST(poll(&pollfd, 1, 0) == 0);
	granted(one, LKM_EXMODE, LKF_VALBLK, "callbacks");
	MUST(request(two, LKM_PRMODE, LKF_VALBLK, "callbacks") == 0);
	MUST(two->lksb.sb_status == EINPROG && two->lksb.sb_lkid != 0);
	until(pollfd.fd, &one->basts, 1);
	MUST(two->asts == 0);
	strcpy(one->value, "written on the way down");
	granted(one, LKM_CRMODE, LKF_CONVERT | LKF_VALBLK, NULL);
	until(pollfd.fd, &two->asts, 1);
	MUST(two->lksb.sb_status == 0 && two->lksb.sb_flags == 0);
	MUST(strcmp(two->value, one->value) == 0);
	unlocked(two);
	MUST(dlm_unlock(one->lksb.sb_lkid, LKF_IVVALBLK, &one->lksb, one) == 0);
	until(pollfd.fd, &one->asts, 3);
	MUST(poll(&pollfd, 1, 0) == 0);
}

static void refusals(void)
{
	struct lock *one = fresh(), *two = fresh(), *none = fresh();
	int fd = dlm_get_fd();
	granted(one, LKM_PRMODE, 0, "refusals");
	MUST(request(two, LKM_EXMODE, LKF_NOQUEUE, "refusals") == 0);
	until(fd, &two->asts, 1);
	MUST(two->lksb.sb_status == EAGAIN);
	FAILS(ENOENT, dlm_unlock(two->lksb.sb_lkid, 0, &two->lksb, two));

	MUST(request(two, LKM_EXMODE, 0, "refusals") == 0);
	FAILS(EBUSY, dlm_unlock(two->lksb.sb_lkid, 0, &two->lksb, two));
	FAILS(EBUSY, request(two, LKM_PRMODE, LKF_CONVERT, NULL));
	MUST(two->lksb.sb_status == EINPROG);
	MUST(dlm_unlock(two->lksb.sb_lkid, LKF_CANCEL, &two->lksb, two) == 0);
	until(fd, &two->asts, 2);
	MUST(two->lksb.sb_status == ECANCEL);

	MUST(request(two, LKM_EXMODE, 0, "refusals") == 0);
	MUST(dlm_unlock(two->lksb.sb_lkid, LKF_FORCEUNLOCK, &two->lksb, two) == 0);
	until(fd, &two->asts, 3);
	MUST(two->lksb.sb_status == EUNLOCK);

	granted(two, LKM_PRMODE, 0, "refusals");
	MUST(request(two, LKM_EXMODE, LKF_CONVERT, NULL) == 0);
	MUST(dlm_unlock(two->lksb.sb_lkid, LKF_CANCEL, &two->lksb, two) == 0);
	until(fd, &two->asts, 5);
	MUST(two->lksb.sb_status == ECANCEL);
	/* There is nothing to cancel, which is no error. */
	MUST(dlm_unlock(two->lksb.sb_lkid, LKF_CANCEL, &two->lksb, two) == 0);
	MUST(request(two, LKM_EXMODE, LKF_CONVERT | LKF_NOQUEUE, NULL) == 0);
	until(fd, &two->asts, 6);
	MUST(two->lksb.sb_status == EAGAIN);
	/* Each would wait for the other. */
	MUST(request(one, LKM_EXMODE, LKF_CONVERT, NULL) == 0);
	MUST(request(two, LKM_EXMODE, LKF_CONVERT, NULL) == 0);
	until(fd, &two->asts, 7);
	MUST(two->lksb.sb_status == EDEADLK);
	unlocked(two);
	until(fd, &one->asts, 2);
	MUST(one->lksb.sb_status == 0);

	FAILS(EINVAL, request(none, 6, 0, "refusals"));
	FAILS(EINVAL, request(none, LKM_PRMODE, LKF_QUECVT, "refusals"));
	FAILS(EINVAL, request(none, LKM_PRMODE, LKF_EXPEDITE, "refusals"));
	FAILS(EINVAL, dlm_lock(LKM_EXMODE, &none->lksb, 0, none->value, 65, 0, ast, none, NULL, NULL));
	FAILS(EINVAL, dlm_lock(LKM_EXMODE, &none->lksb, 0, "a", 1, 0, NULL, none, NULL, NULL));
	FAILS(EINVAL, dlm_unlock(0, 0, &none->lksb, none));
	FAILS(ENOENT, dlm_unlock(987654, 0, &none->lksb, none));
	FAILS(ENOSYS, dlm_lock(LKM_EXMODE, &none->lksb, 0, "a", 1, 0, ast, none, NULL, none));
	none->lksb.sb_lvbptr = NULL;
	FAILS(EINVAL, request(none, LKM_PRMODE, LKF_VALBLK, "refusals"));
	MUST(none->asts == 0);
	unlocked(one);
}

/* Synchronous calls, in this program without a thread for callbacks. */
static void waits(void)
{
	struct dlm_lksb one = { 0 }, two = { 0 };
	MUST(dlm_lock_wait(LKM_EXMODE, &one, 0, "waits", 5, 0, NULL, NULL, NULL) == 0 && one.sb_status == 0);
	MUST(dlm_lock_wait(LKM_EXMODE, &two, LKF_NOQUEUE, "waits", 5, 0, NULL, NULL, NULL) == 0 && two.sb_status == EAGAIN);
	MUST(dlm_lock_wait(LKM_PRMODE, &one, LKF_CONVERT, NULL, 0, 0, NULL, NULL, NULL) == 0 && one.sb_status == 0);
	MUST(dlm_lock_wait(LKM_PRMODE, &two, LKF_NOQUEUE, "waits", 5, 0, NULL, NULL, NULL) == 0 && two.sb_status == 0);
	MUST(dlm_unlock_wait(one.sb_lkid, 0, &one) == 0 && one.sb_status == EUNLOCK);
	MUST(dlm_unlock_wait(two.sb_lkid, 0, &two) == 0 && two.sb_status == EUNLOCK);

	/* What comes together with the end that is waited for is not lost. */
	struct lock *next = fresh();
	MUST(dlm_lock_wait(LKM_EXMODE, &one, 0, "waits", 5, 0, NULL, NULL, NULL) == 0 && one.sb_status == 0);
	MUST(request(next, LKM_EXMODE, 0, "waits") == 0);
	MUST(dlm_unlock_wait(one.sb_lkid, 0, &one) == 0 && one.sb_status == EUNLOCK);
	until(dlm_get_fd(), &next->asts, 1);
	MUST(next->lksb.sb_status == 0);
}

static void spaces(void)
{
	struct dlm_lksb lksb = { 0 };
	struct lock *one = fresh(), *two = fresh();
	uint64_t soon = 5, xid = 7;
	dlm_lshandle_t first, second;
	FAILS(ENOENT, dlm_open_lockspace("spaces") ? 0 : -1);
	first = dlm_new_lockspace("spaces", 0600, DLM_LSFL_NEWEXCL);
	MUST(first);
	FAILS(EEXIST, dlm_new_lockspace("spaces", 0600, DLM_LSFL_NEWEXCL) ? 0 : -1);
	FAILS(EINVAL, dlm_create_lockspace("a/b", 0600) ? 0 : -1);
	second = dlm_open_lockspace("spaces");
	MUST(second && second != first && dlm_ls_get_fd(first) != dlm_ls_get_fd(second));

	MUST(dlm_ls_lock_wait(first, LKM_EXMODE, &lksb, 0, "r", 1, 0, NULL, NULL, NULL) == 0 && lksb.sb_status == 0);
	MUST(dlm_ls_lockx(second, LKM_PRMODE, &one->lksb, LKF_TIMEOUT, "r", 1, 0, ast, one, bast, &xid, &soon) == 0);
	until(dlm_ls_get_fd(second), &one->asts, 1);
	MUST(one->lksb.sb_status == ETIMEDOUT);
	MUST(dlm_ls_lockx(second, LKM_PRMODE, &one->lksb, 0, "r", 1, 0, ast, one, bast, &xid, NULL) == 0);
	MUST(dlm_ls_deadlock_cancel(second, one->lksb.sb_lkid, 0) == 0);
	until(dlm_ls_get_fd(second), &one->asts, 2);
	MUST(one->lksb.sb_status == EDEADLK);
	/* A lock of one handle is none of another's. */
	FAILS(ENOENT, dlm_ls_unlock(second, lksb.sb_lkid, 0, &one->lksb, one));
	FAILS(ENOTCONN, dlm_ls_unlock(NULL, lksb.sb_lkid, 0, &one->lksb, one));

	/* The end of a handle is the end of its locks. */
	MUST(dlm_close_lockspace(first) == 0);
	FAILS(EINVAL, dlm_close_lockspace(first));
	MUST(dlm_ls_lock(second, LKM_EXMODE, &one->lksb, LKF_NOQUEUE, "r", 1, 0, ast, one, bast, NULL) == 0);
	until(dlm_ls_get_fd(second), &one->asts, 3);
	MUST(one->lksb.sb_status == 0);

	first = dlm_open_lockspace("spaces");
	MUST(first);
	FAILS(EBUSY, dlm_release_lockspace("spaces", first, 0));
	MUST(dlm_ls_purge(second, 0, getpid()) == 0);
	FAILS(ENOENT, dlm_ls_unlock(second, one->lksb.sb_lkid, 0, &one->lksb, one));
	MUST(dlm_ls_lock(second, LKM_EXMODE, &two->lksb, LKF_PERSISTENT, "orphan", 6, 0, ast, two, bast, NULL) == 0);
	until(dlm_ls_get_fd(second), &two->asts, 1);
	MUST(dlm_close_lockspace(second) == 0);
	second = dlm_open_lockspace("spaces");
	MUST(dlm_ls_lock(second, LKM_EXMODE, &two->lksb, LKF_NOQUEUE, "orphan", 6, 0, ast, two, bast, NULL) == 0);
	until(dlm_ls_get_fd(second), &two->asts, 2);
	MUST(two->lksb.sb_status == EAGAIN);
	MUST(dlm_ls_purge(second, 0, 0) == 0);
	MUST(dlm_ls_lock(second, LKM_EXMODE, &two->lksb, LKF_NOQUEUE, "orphan", 6, 0, ast, two, bast, NULL) == 0);
	until(dlm_ls_get_fd(second), &two->asts, 3);
	MUST(two->lksb.sb_status == 0);
	MUST(dlm_release_lockspace("spaces", second, 1) == 0);
	FAILS(ENOENT, dlm_open_lockspace("spaces") ? 0 : -1);
}

static void versions(void)
{
	uint32_t major = 0, minor = 9, patch = 0;
	dlm_library_version(&major, &minor, &patch);
	MUST(major == 6 && minor == 0);
	MUST(dlm_kernel_version(&major, &minor, &patch) == 0 && major == 6);
}

/* Holds a lock with a value until it is killed. */
static void hold(void)
{
	struct lock *one = fresh();
	granted(one, LKM_EXMODE, LKF_VALBLK, "between processes");
	strcpy(one->value, "from the first");
	granted(one, LKM_EXMODE, LKF_CONVERT | LKF_VALBLK, NULL);
	puts("held");
	fflush(stdout);
	until(dlm_get_fd(), &one->basts, 1);
	puts("called");
	fflush(stdout);
	for (;;)
		pause();
}

/* Waits for the one who holds it, and finds out that he died. */
static void inherit(void)
{
	struct lock *one = fresh();
	granted(one, LKM_PRMODE, LKF_VALBLK, "between processes");
	MUST(one->lksb.sb_flags == DLM_SBF_VALNOTVALID);
	MUST(strcmp(one->value, "from the first") == 0);
}

#ifdef _REENTRANT
#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_t in_thread;

static void noted(void *arg)
{
	pthread_mutex_lock(&mutex);
	((struct lock *)arg)->asts++;
	in_thread = pthread_self();
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);
}

/* From inside a callback everything may be called, and waited for. */
static void nested(void *arg)
{
	struct dlm_lksb other = { 0 };
	MUST(dlm_lock_wait(LKM_EXMODE, &other, 0, "nested", 6, 0, NULL, NULL, NULL) == 0 && other.sb_status == 0);
	MUST(dlm_unlock_wait(other.sb_lkid, 0, &other) == 0 && other.sb_status == EUNLOCK);
	noted(arg);
}

static void *many(void *arg)
{
	int id, i;
	(void)arg;
	for (i = 0; i < 50; i++) {
		MUST(lock_resource("many", LKM_EXMODE, 0, &id) == 0);
		MUST(unlock_resource(id) == 0);
	}
	return NULL;
}

static void threads(void)
{
	struct lock *one = fresh();
	pthread_t workers[4];
	int id, other, i;
	FAILS(ENOTCONN, unlock_resource(1));
	MUST(lock_resource("threads", LKM_EXMODE, 0, &id) == 0);
	FAILS(EAGAIN, lock_resource("threads", LKM_EXMODE, LKF_NOQUEUE, &other));
	MUST(lock_resource("threads", LKM_PRMODE, LKF_CONVERT, &id) == 0);
	FAILS(EINVAL, lock_resource("threads", LKM_PRMODE, 0, NULL));
	FAILS(EEXIST, dlm_pthread_init());
	MUST(unlock_resource(id) == 0);
	FAILS(ENOENT, unlock_resource(id));
	MUST(dlm_lock(LKM_EXMODE, &one->lksb, 0, "threads", 7, 0, nested, one, NULL, NULL) == 0);
	pthread_mutex_lock(&mutex);
	while (one->asts == 0)
		pthread_cond_wait(&cond, &mutex);
	MUST(!pthread_equal(in_thread, pthread_self()));
	pthread_mutex_unlock(&mutex);
	for (i = 0; i < 4; i++)
		MUST(pthread_create(&workers[i], NULL, many, NULL) == 0);
	for (i = 0; i < 4; i++)
		pthread_join(workers[i], NULL);
	MUST(dlm_pthread_cleanup() == 0);
	/* It is closed, and can be opened anew. */
	MUST(lock_resource("threads", LKM_EXMODE, LKF_NOQUEUE, &id) == 0);
	MUST(dlm_pthread_cleanup() == 0);
}
#endif

int main(int argc, char **argv)
{
	MUST(argc == 2);
	alarm(60);
	if (!strcmp(argv[1], "callbacks")) callbacks();
	else if (!strcmp(argv[1], "refusals")) refusals();
	else if (!strcmp(argv[1], "waits")) waits();
	else if (!strcmp(argv[1], "spaces")) spaces();
	else if (!strcmp(argv[1], "versions")) versions();
	else if (!strcmp(argv[1], "hold")) hold();
	else if (!strcmp(argv[1], "inherit")) inherit();
#ifdef _REENTRANT
	else if (!strcmp(argv[1], "threads")) threads();
#endif
	else MUST(!"something that is known");
	return 0;
}
