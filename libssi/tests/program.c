/*
 * A program for libssi, one scenario a run: facts, refusals, history, wait, signal, drain, nowhere.
 * It is made with -Wall -Werror and the old header's name, and is also valid C++.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/cluster.h>
#include <sys/time.h>
#include <unistd.h>

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "line %d: %s (errno %d, %s)\n", __LINE__, #what, errno, strerror(errno)); \
			exit(1); \
		} \
	} while (0)

#define FAILS(number, call) \
	do { \
		errno = 0; \
		CHECK((call) == -1); \
		CHECK(errno == (number)); \
	} while (0)

static const int info_size = (int)sizeof(clusternode_info_t);
static const int trans_size = (int)sizeof(cluster_transinfo_t);

static void facts(void)
{
	transid_t transid = 0;
	clusternode_t up[6] = { 9, 9, 9, 9, 9, 9 };
	clusternode_info_t info;
	struct { clusternode_info_t info; char later[32]; } longer;

	CHECK(cluster_ssiconfig() == 1);
	CHECK(strcmp(cluster_name(), "blue") == 0);
	CHECK(clusternode_num() == 2);
	CHECK(cluster_maxnodes() == 255);
	CHECK(cluster_getnodebyname("three") == 3);
	CHECK(cluster_membership(&transid, 6, up) == 2);
	CHECK(up[0] == 1 && up[1] == 2 && up[2] == 0 && up[5] == 0);
	CHECK(CLUSTER_TRANSID_NUMBER(transid) == 7);
	CHECK(cluster_membership(NULL, 0, NULL) == 2);
	up[1] = 9;
	CHECK(cluster_membership(NULL, 1, up) == 2 && up[0] == 1 && up[1] == 9);
	CHECK(clusternode_avail(1) == 1);
	CHECK(clusternode_avail(3) == 0);
	CHECK(clusternode_avail(4) == 0);

	CHECK(clusternode_info(2, info_size, &info) == 0);
	CHECK(info.node_num == 2 && info.node_state == CLUSTERNODE_UP);
	CHECK(info.node_flags == (CLUSTERNODE_FLAG_LOCAL | CLUSTERNODE_FLAG_VOTER));
	CHECK(info.node_totalcpus == 8 && info.node_onlinecpus == 8 && info.node_cpupower == 100);
	CHECK(info.node_totalmem == 1ULL << 34 && info.node_life == 5);
	CHECK(strcmp(info.node_name, "two") == 0 && strcmp(info.node_addr, "10.0.0.2:7100") == 0);
	CHECK(info.node_transid == transid);
	CHECK(clusternode_info(1, info_size, &info) == 0);
	CHECK(info.node_flags == (CLUSTERNODE_FLAG_MASTER | CLUSTERNODE_FLAG_VOTER));
	CHECK(clusternode_info(3, info_size, &info) == 0);
	CHECK(info.node_state == CLUSTERNODE_DOWN && info.node_onlinecpus == 0 && info.node_totalcpus == 8);
	CHECK(clusternode_info(4, info_size, &info) == 0 && info.node_state == CLUSTERNODE_NEVERUP);
	CHECK(clusternode_info(5, info_size, &info) == 0 && info.node_state == CLUSTERNODE_SHUTDOWN);
	CHECK(info.node_flags == CLUSTERNODE_FLAG_DRAINED);

	/* A program of a later time has a longer structure. */
	memset(&longer, 0xff, sizeof longer);
	CHECK(clusternode_info(2, (int)sizeof longer, &longer.info) == 0);
	CHECK(longer.info.node_num == 2 && longer.later[0] == 0 && longer.later[31] == 0);
}

static void refusals(void)
{
	transid_t transid = 0;
	clusternode_t up[2];
	clusternode_info_t info;
	cluster_transinfo_t trans;

	FAILS(EINVAL, cluster_membership(&transid, -1, up));
	FAILS(EINVAL, cluster_membership(&transid, 2, NULL));
	FAILS(EINVAL, cluster_getnodebyname(NULL));
	FAILS(EINVAL, cluster_getnodebyname(""));
	FAILS(EINVAL, cluster_getnodebyname("nobody"));
	FAILS(EINVAL, clusternode_avail(0));
	FAILS(EINVAL, clusternode_avail(-1));
	FAILS(EINVAL, clusternode_avail(99));
	FAILS(EINVAL, clusternode_avail(1L << 40));
	FAILS(EINVAL, clusternode_info(99, info_size, &info));
	FAILS(EINVAL, clusternode_info(1, info_size, NULL));
	FAILS(EINVAL, clusternode_info(1, info_size - 1, &info));
	FAILS(EINVAL, clusternode_info(1, -1, &info));
	memset(&info, 0, sizeof info);
	info.node_state = CLUSTERNODE_SHUTDOWN;
	FAILS(EINVAL, clusternode_setinfo(99, CLUSTERNODE_SETSTATE, info_size, &info));
	FAILS(EINVAL, clusternode_setinfo(1, 77, info_size, &info));
	FAILS(EINVAL, clusternode_setinfo(1, CLUSTERNODE_SETSTATE, info_size, NULL));
	FAILS(EINVAL, clusternode_setinfo(3, CLUSTERNODE_SETSTATE, info_size, &info));
	info.node_state = 99;
	FAILS(EINVAL, clusternode_setinfo(1, CLUSTERNODE_SETSTATE, info_size, &info));
	info.node_state = CLUSTERNODE_KCLEANUP;
	FAILS(EOPNOTSUPP, clusternode_setinfo(1, CLUSTERNODE_SETSTATE, info_size, &info));
	info.node_state = CLUSTERNODE_GOINGDOWN;
	FAILS(EOPNOTSUPP, clusternode_setinfo(1, CLUSTERNODE_SETSTATE, info_size, &info));
	FAILS(EINVAL, cluster_transition(NULL, trans_size, &trans));
	FAILS(EINVAL, cluster_transition(&transid, trans_size, NULL));
	FAILS(EINVAL, cluster_transition(&transid, 8, &trans));
	FAILS(EINVAL, cluster_detailedtransition(5, &transid, trans_size, &trans));
	FAILS(EINVAL, cluster_detailedtransition(-1, &transid, trans_size, &trans));
	FAILS(ENOENT, cluster_detailedtransition(CLUSTER_TRANSWHICH_THIS, &transid, trans_size, &trans));
	FAILS(ENOENT, cluster_detailedtransition(CLUSTER_TRANSWHICH_PREVIOUS, &transid, trans_size, &trans));
	FAILS(EINVAL, cluster_waittransition(&transid, 0, 0, 0, trans_size, &trans));
	FAILS(EINVAL, cluster_waittransition(&transid, 2, 0, 1, trans_size, &trans));
	CHECK(transid == 0);
	/* The fake daemon keeps transitions 3 to 7. */
	transid = 1ULL << 16 | 0xffff;
	FAILS(ESTALE, cluster_transition(&transid, trans_size, &trans));
	FAILS(ESTALE, cluster_waittransition(&transid, 0, 0, 1, trans_size, &trans));
	FAILS(ESTALE, cluster_detailedtransition(CLUSTER_TRANSWHICH_NEXT, &transid, trans_size, &trans));
}

static void show(const cluster_transinfo_t *trans)
{
	printf("%llu.%llu node %ld %d->%d why %d %s\n", (unsigned long long)CLUSTER_TRANSID_NUMBER(trans->trans_id),
	       (unsigned long long)(trans->trans_id & 0xffff), trans->trans_node, trans->trans_fromstate,
	       trans->trans_tostate, trans->trans_why, trans->trans_text);
	fflush(stdout);
}

static void history(void)
{
	cluster_transinfo_t trans;
	transid_t transid = 0, first, last;

	while (cluster_transition(&transid, trans_size, &trans) == 0) {
		CHECK(transid == trans.trans_id);
		CHECK((uint64_t)trans.trans_time == trans.trans_time_ms / 1000);
		show(&trans);
	}
	CHECK(errno == EAGAIN);
	printf("detailed\n");
	CHECK(cluster_detailedtransition(CLUSTER_TRANSWHICH_FIRST, &transid, trans_size, &trans) == 0);
	first = transid;
	do
		show(&trans);
	while (cluster_detailedtransition(CLUSTER_TRANSWHICH_NEXT, &transid, trans_size, &trans) == 0);
	CHECK(errno == EAGAIN);
	last = transid;
	printf("back\n");
	CHECK(cluster_detailedtransition(CLUSTER_TRANSWHICH_LAST, &transid, trans_size, &trans) == 0 && transid == last);
	do {
		show(&trans);
		CHECK(cluster_detailedtransition(CLUSTER_TRANSWHICH_THIS, &transid, trans_size, &trans) == 0);
	} while (cluster_detailedtransition(CLUSTER_TRANSWHICH_PREVIOUS, &transid, trans_size, &trans) == 0);
	CHECK(errno == ENOENT && transid == first);
}

/* Shows every change from the present on, until node 99 is told of; then how many there were. */
static void waits(int detailed)
{
	cluster_transinfo_t trans[3];
	transid_t transid;
	int count, i, all = 0;

	CHECK(cluster_membership(&transid, 0, NULL) >= 0);
	CHECK(cluster_waittransition(&transid, detailed, 0, 3, trans_size, trans) == 0);
	CHECK(cluster_waittransition(&transid, detailed, 20, 3, trans_size, trans) == 0);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		count = cluster_waittransition(&transid, detailed, -1, 3, trans_size, trans);
		CHECK(count > 0);
		for (i = 0; i < count; i++, all++) {
			show(&trans[i]);
			if (trans[i].trans_node == 99)
				exit(0);
		}
		CHECK(transid == trans[count - 1].trans_id);
	}
}

static void rung(int number)
{
	(void)number;
}

static void interrupted(void)
{
	cluster_transinfo_t trans;
	transid_t transid, before;
	struct itimerval soon = { { 0, 0 }, { 0, 300000 } };

	signal(SIGALRM, rung);
	CHECK(cluster_membership(&transid, 0, NULL) >= 0);
	before = transid;
	setitimer(ITIMER_REAL, &soon, NULL);
	FAILS(EINTR, cluster_waittransition(&transid, 1, -1, 1, trans_size, &trans));
	CHECK(transid == before);
}

static void drain(void)
{
	clusternode_info_t info;

	memset(&info, 0, sizeof info);
	info.node_state = CLUSTERNODE_SHUTDOWN;
	CHECK(clusternode_setinfo(1, CLUSTERNODE_SETSTATE, info_size, &info) == 0);
	info.node_state = CLUSTERNODE_UP;
	CHECK(clusternode_setinfo(5, CLUSTERNODE_SETSTATE, info_size, &info) == 0);
	/* The fake daemon lets nobody drain node 2. */
	info.node_state = CLUSTERNODE_SHUTDOWN;
	FAILS(EPERM, clusternode_setinfo(2, CLUSTERNODE_SETSTATE, info_size, &info));
	info.node_state = CLUSTERNODE_GOINGDOWN;
	CHECK(clusternode_setinfo(2, CLUSTERNODE_SETSTATE, info_size, &info) == 0);
}

static void nowhere(int number)
{
	transid_t transid = 0;
	cluster_transinfo_t trans;

	CHECK(cluster_ssiconfig() == (number == ENOTCONN));
	FAILS(number, cluster_membership(&transid, 0, NULL));
	FAILS(number, clusternode_num());
	FAILS(number, cluster_transition(&transid, trans_size, &trans));
	errno = 0;
	CHECK(cluster_name() == NULL && errno == number);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "facts") == 0)
		facts();
	else if (strcmp(what, "refusals") == 0)
		refusals();
	else if (strcmp(what, "history") == 0)
		history();
	else if (strcmp(what, "wait") == 0)
		waits(CLUSTER_DETAILED);
	else if (strcmp(what, "wait-simple") == 0)
		waits(CLUSTER_SIMPLE);
	else if (strcmp(what, "signal") == 0)
		interrupted();
	else if (strcmp(what, "drain") == 0)
		drain();
	else if (strcmp(what, "nowhere") == 0)
		nowhere(ENOSYS);
	else if (strcmp(what, "away") == 0)
		nowhere(ENOTCONN);
	else
		return 2;
	return 0;
}
