/* Prints what libssi tells of the cluster; with an argument it follows every change instead. */
#include <errno.h>
#include <ssi/cluster.h>
#include <stdio.h>
#include <string.h>

static int look(void)
{
	clusternode_t up[1000];
	clusternode_info_t info;
	transid_t at = 0;
	int count = cluster_membership(&at, 1000, up);
	long node;
	int i;

	if (count < 0) {
		perror("cluster_membership");
		return 1;
	}
	printf("%s %ld %d %llu\n", cluster_name(), clusternode_num(), cluster_maxnodes(),
	       (unsigned long long)CLUSTER_TRANSID_NUMBER(at));
	for (i = 0; i < count; i++)
		printf("up %ld\n", up[i]);
	for (node = 1; node <= 3; node++) {
		if (clusternode_info(node, sizeof info, &info) != 0) {
			printf("node %ld %s\n", node, errno == EINVAL ? "none" : strerror(errno));
			continue;
		}
		printf("node %ld %s state %d flags %x cpus %d/%d %s avail %d back %ld\n", info.node_num, info.node_name,
		       info.node_state, info.node_flags, info.node_onlinecpus, info.node_totalcpus, info.node_addr,
		       clusternode_avail(node), cluster_getnodebyname(info.node_name));
	}
	return 0;
}

static int follow(void)
{
	cluster_transinfo_t changes[4];
	transid_t at;
	int i, count;

	if (cluster_membership(&at, 0, NULL) < 0)
		return 1;
	printf("after %llu\n", (unsigned long long)CLUSTER_TRANSID_NUMBER(at));
	do {
		fflush(stdout);
		count = cluster_waittransition(&at, CLUSTER_DETAILED, -1, 4, sizeof changes[0], changes);
		for (i = 0; i < count; i++)
			printf("%llu %ld %d %d %d\n", (unsigned long long)changes[i].trans_id, changes[i].trans_node,
			       changes[i].trans_fromstate, changes[i].trans_tostate, changes[i].trans_why);
	} while (count > 0);
	perror("cluster_waittransition");
	return 1;
}

int main(int argc, char **argv)
{
	(void)argv;
	return argc > 1 ? follow() : look();
}
