/*
 * The cluster, for programs: who is in it, and what changes. See libssi(7).
 *
 * The functions and constants have the names that OpenSSI's libcluster gave them; numbers and layouts are ours, so a program for OpenSSI is compiled anew.
 * Structures are passed with their size: they may grow at the end, and a program that was compiled earlier goes on to work.
 */
#ifndef SSI_CLUSTER_H
#define SSI_CLUSTER_H

#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The number of a node, from 1. */
typedef long clusternode_t;

/* The id of a change; later ones are larger. 0: before all that are kept. */
typedef uint64_t transid_t;

/* The number of the transition that a change is part of, as `ssi transitions` prints it. */
#define CLUSTER_TRANSID_NUMBER(id) ((uint64_t)(id) >> 16)

#define CLUSTERNODE_INVAL 0 /* no node */

/* The states of a node. */
#define CLUSTERNODE_NONE 0       /* there is no such node */
#define CLUSTERNODE_NEVERUP 1    /* it has joined, and was never started */
#define CLUSTERNODE_COMINGUP 2   /* it starts (not told yet: a node that starts is DOWN until it is UP) */
#define CLUSTERNODE_UP 3         /* it works */
#define CLUSTERNODE_SHUTDOWN 4   /* it works, and gets no new work: it is drained */
#define CLUSTERNODE_GOINGDOWN 5  /* it is being stopped (only to ask for it) */
#define CLUSTERNODE_KCLEANUP 6   /* not told: the system tidies up by itself */
#define CLUSTERNODE_UCLEANUP 7   /* not told: the system tidies up by itself */
#define CLUSTERNODE_DOWN 8       /* it is gone, and its processes with it */
#define CLUSTERNODE_STALLED 9    /* a daemon of it is away or does not answer; its processes live */
#define CLUSTERNODE_FENCED 10    /* it is gone, and known to be unable to touch anything shared */

/* In node_flags. */
#define CLUSTERNODE_FLAG_LOCAL 0x1   /* the calling process is on it */
#define CLUSTERNODE_FLAG_MASTER 0x2  /* it is the CLMS master */
#define CLUSTERNODE_FLAG_VOTER 0x4   /* it votes about transitions */
#define CLUSTERNODE_FLAG_DRAINED 0x8 /* it gets no new work */

#define CLUSTERNODE_NAME_BYTES 64
#define CLUSTERNODE_ADDR_BYTES 64
#define CLUSTER_TEXT_BYTES 208

/* What there is to know of a node. */
typedef struct clusternode_info {
	clusternode_t node_num;
	int node_state;           /* CLUSTERNODE_... */
	int node_flags;           /* CLUSTERNODE_FLAG_... */
	transid_t node_transid;   /* the transition of the table that says all this */
	int node_totalcpus;       /* cores that it gives */
	int node_onlinecpus;      /* the same while it lives, otherwise 0 */
	int node_cpupower;        /* relative speed of a core; 100 is the reference */
	int node_reserved;
	uint64_t node_totalmem;   /* bytes that it gives */
	uint64_t node_life;       /* its life: a later one is larger */
	char node_name[CLUSTERNODE_NAME_BYTES];
	char node_addr[CLUSTERNODE_ADDR_BYTES]; /* "ip:port" of its daemon */
} clusternode_info_t;

/* Why something changed: trans_why. */
#define CLUSTER_TRANSWHY_UNKNOWN 0   /* something that this library is too old to know */
#define CLUSTER_TRANSWHY_JOINED 1    /* a machine was taken in */
#define CLUSTER_TRANSWHY_STARTED 2   /* it began a life, or works again */
#define CLUSTER_TRANSWHY_STALLED 3   /* a daemon of it went away or did not answer */
#define CLUSTER_TRANSWHY_FAILED 4    /* it was silent for too long */
#define CLUSTER_TRANSWHY_LEFT 5      /* it was stopped in good order */
#define CLUSTER_TRANSWHY_FENCED 6    /* it was fenced, or fencing it failed */
#define CLUSTER_TRANSWHY_REMOVED 7   /* it was taken out of the table */
#define CLUSTER_TRANSWHY_RENAMED 8   /* it has another name */
#define CLUSTER_TRANSWHY_DRAINED 9   /* it is drained, or no longer */
#define CLUSTER_TRANSWHY_DESCRIBED 10 /* something was written down about it */
#define CLUSTER_TRANSWHY_VOTERS 11   /* other nodes vote */
#define CLUSTER_TRANSWHY_MASTER 12   /* another node is master */
#define CLUSTER_TRANSWHY_SETTING 13  /* a setting of the cluster */

/* One change. */
typedef struct cluster_transinfo {
	transid_t trans_id;
	clusternode_t trans_node; /* 0: the cluster as a whole */
	int trans_fromstate;      /* CLUSTERNODE_... */
	int trans_tostate;        /* the same where something else changed */
	int trans_why;            /* CLUSTER_TRANSWHY_... */
	int trans_reserved;
	time_t trans_time;        /* when it was proposed, seconds since 1970 */
	uint64_t trans_time_ms;   /* the same in milliseconds */
	char trans_text[CLUSTER_TEXT_BYTES]; /* for people: why, the new name, ... */
} cluster_transinfo_t;

/* Which change, for cluster_detailedtransition(). */
#define CLUSTER_TRANSWHICH_THIS 0     /* the given one */
#define CLUSTER_TRANSWHICH_NEXT 1     /* the one after it */
#define CLUSTER_TRANSWHICH_PREVIOUS 2 /* the one before it */
#define CLUSTER_TRANSWHICH_FIRST 3    /* the oldest that is kept */
#define CLUSTER_TRANSWHICH_LAST 4     /* the newest */

/* What to set, for clusternode_setinfo(). */
#define CLUSTERNODE_SETSTATE 1

/* Which changes, for cluster_waittransition(). */
#define CLUSTER_SIMPLE 0   /* those to and from CLUSTERNODE_UP */
#define CLUSTER_DETAILED 1 /* all */

int cluster_ssiconfig(void);
char *cluster_name(void);
int cluster_maxnodes(void);
int cluster_membership(transid_t *transid, int arraylength, clusternode_t *membershiparray);
clusternode_t cluster_getnodebyname(const char *nodename);

clusternode_t clusternode_num(void);
int clusternode_avail(clusternode_t nodenum);
int clusternode_info(clusternode_t nodenum, int size, clusternode_info_t *nodeinfo);
int clusternode_setinfo(clusternode_t nodenum, int action, int size, clusternode_info_t *nodeinfo);

int cluster_transition(transid_t *transid, int size, cluster_transinfo_t *transinfo);
int cluster_detailedtransition(int which, transid_t *transid, int size, cluster_transinfo_t *transinfo);

/* Ours: waits for up to `count` changes after *transid. */
int cluster_waittransition(transid_t *transid, int detailed, int timeout_ms, int count, int size,
			   cluster_transinfo_t *transinfo);

#ifdef __cplusplus
}
#endif

#endif
