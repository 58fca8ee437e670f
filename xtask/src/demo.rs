//! The demo: the main job on a local cluster, told in seven steps on one screen.
//!
//! Invariant: every line that is printed was checked; however the demo ends, the cluster ends with it (unless `--keep`
//! was given and everything went well).

mod job;
mod rows;
mod shown;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::args::Given;
use crate::cluster::{Cluster, NodeRow};
use crate::error::Error;
use crate::leftovers::Trace;
use crate::picture::Grey;
use crate::place;
use crate::run;
use crate::setup::{self, Purpose};
use job::{FOLDER, Job, Seen};

/// Two ranks a node.
const RANKS_A_NODE: u32 = 2;
/// Steps of the first try: some ten seconds on two cores.
const STEPS: u32 = 800;
/// A machine on which even so many steps are over before we have looked is not one that we know.
const STEPS_MAX: u32 = STEPS * 256;
/// The job tells of its progress this many times.
const REPORTS: u32 = 32;
/// More steps than anybody waits for: that job is killed.
const STEPS_ENDLESS: u32 = 100_000_000;
/// How long the job may take.
const JOB_LIMIT: Duration = Duration::from_secs(300);
/// Width and height of the plate.
const PLATE: (usize, usize) = (620, 300);

/// The verb `demo`.
pub fn verb(given: &Given) -> Result<(), Error> {
    let nodes = given.number("nodes", 3, 3..=8)?;
    let dir = match given.value("dir") {
        Some(dir) => std::path::absolute(dir).map_err(Error::io("find the directory"))?,
        None => std::env::temp_dir().join(format!("ssi-demo-{}", std::process::id())),
    };
    setup::ready_for(Purpose::Run)?;
    let built = place::build("build --quiet --package node")?;
    run::stop_if_interrupted()?;
    let out = place::root().join("demo-out");
    fs::create_dir_all(&out).map_err(Error::io(format!("create {}", out.display())))?;

    let begin = Instant::now();
    tell(nodes, dir, &out, given.has("keep"))?;
    let took = begin.elapsed().as_secs_f32();
    println!("build {:.1} s, demo {took:.1} s", built.as_secs_f32());
    println!("demo ok: {} ranks on {nodes} nodes, {took:.1} s", nodes * RANKS_A_NODE);
    Ok(())
}

/// All steps in their order.
fn tell(nodes: u32, dir: PathBuf, out: &Path, keep: bool) -> Result<(), Error> {
    let begin = Instant::now();
    let cluster = step(1, "a cluster", || Cluster::up(place::built("ssi")?, dir, nodes))?;
    let table = step(1, "a cluster", || up(&cluster))?;
    let title =
        format!("a local cluster of {nodes} nodes, up in {:.1} s: ssi nodes", begin.elapsed().as_secs_f32());
    show(1, &title, table.0.lines());
    let trace = cluster.trace();

    let told = job_and_files(&cluster, &table.1, out);
    if let Err(error) = told {
        drop(cluster);
        let left = trace.settled();
        let all = if left.is_empty() { "nothing of it is left" } else { "but this is left:" };
        eprintln!("the cluster was taken down; {all}");
        left.iter().for_each(|line| eprintln!("    {line}"));
        return Err(error);
    }
    if keep {
        show(7, "the cluster stays up", [] as [&str; 0]);
        println!("{}", cluster.keep());
        return Ok(());
    }
    let namespaces = trace.namespaces();
    step(7, "all is gone", || gone(cluster, &trace))?;
    show(7, &format!("all is gone: processes, mounts, {namespaces} namespaces, files"), [] as [&str; 0]);
    Ok(())
}

/// Steps 2 to 6.
fn job_and_files(cluster: &Cluster, nodes: &[NodeRow], out: &Path) -> Result<(), Error> {
    let ranks = (cluster.nodes() * RANKS_A_NODE) as usize;
    let last = cluster.nodes();
    step(2, "the job", || compile(cluster, out))?;
    let (job, seen, steps) = watched(cluster, ranks)?;
    let started = format!(
        "ssirun -n {ranks} -ppn 2 {FOLDER}/heat: an unmodified MPI program, two ranks a node, {steps} steps"
    );
    show(2, &started, [] as [&str; 0]);
    let places: Vec<String> = seen.places.iter().map(|(pid, node)| format!("{pid}:{node}")).collect();
    let title = format!("ps -ef on node 2 (the same pids on every node; {} other processes)", seen.others);
    let places = format!("where_pid (pid:node): {}", places.join(" "));
    show(3, &title, seen.rows.iter().chain([&places]));
    let stopped = format!(
        "kill -STOP from node {last}: the rank on node 1 stops (state T on node 2), the job stands still"
    );
    show(4, &stopped, ["kill -CONT: it goes on"]);
    let printed = step(2, "the job", || job.finish(JOB_LIMIT))?;

    let (message, took) = step(4, "a killed rank", || {
        Job::start(cluster, ranks, STEPS_ENDLESS, STEPS / REPORTS)?.kill_one(last)
    })?;
    let killed =
        format!("kill -KILL from node {last}: the job ended in {:.2} s, exit code 137", took.as_secs_f32());
    show(4, &killed, [message]);
    show(5, "the files on every node", step(5, "the files", || shown::files(cluster, &printed, out))?);
    show(6, "the least loaded node", step(6, "the least loaded node", || shown::loads(cluster, nodes))?);
    Ok(())
}

/// Runs the job long enough for all that is to be seen of it while it runs.
fn watched(cluster: &Cluster, ranks: usize) -> Result<(Job<'_>, Seen, u32), Error> {
    let mut steps = STEPS;
    loop {
        let mut job = step(2, "the job", || Job::start(cluster, ranks, steps, steps / REPORTS))?;
        let seen = step(3, "one view of all processes", || job.look()).and_then(|seen| {
            let rank = seen.places.iter().rfind(|(_, node)| **node == 1).map_or(0, |(pid, _)| *pid);
            step(4, "stop and continue", || job.stop_and_continue(rank, cluster.nodes()))?;
            Ok(seen)
        });
        match seen {
            Ok(seen) => return Ok((job, seen, steps)),
            Err(error) if error.is_interruption() => return Err(error),
            // A fast machine: over before we had seen everything. Nothing was wrong but the length.
            Err(_) if steps < STEPS_MAX && job.has_succeeded()? => steps *= 4,
            Err(error) => return Err(error),
        }
    }
}

/// All nodes are UP.
fn up(cluster: &Cluster) -> Result<(String, Vec<NodeRow>), Error> {
    let (text, rows) = cluster.table()?;
    let right = rows.len() == cluster.nodes() as usize && rows.iter().all(|row| row.state == "UP");
    let why = format!("`ssi nodes` must list {} nodes, all UP", cluster.nodes());
    if right { Ok((text, rows)) } else { Err(Error::check(why, text)) }
}

/// Puts the program and its plate into the shared filesystem.
fn compile(cluster: &Cluster, out: &Path) -> Result<(), Error> {
    let (width, height) = PLATE;
    let plate = out.join("plate.pgm");
    let what = format!("write {}", plate.display());
    fs::write(&plate, Grey::plate(width, height).to_pgm()).map_err(Error::io(what))?;
    let source = place::root().join("examples/heat/heat.c").display().to_string();
    cluster.at(1, &["mkdir", "-p", FOLDER])?;
    let copied = cluster.at(1, &["cp", &plate.display().to_string(), &format!("{FOLDER}/plate.pgm")]);
    fs::remove_file(&plate).map_err(Error::io(format!("remove {}", plate.display())))?;
    copied?;
    // By its full name: where Open MPI is installed too, `mpicc` may be that one's.
    cluster.at(1, &["mpicc.mpich", "-O2", "-o", &format!("{FOLDER}/heat"), &source, "-lm"])?;
    Ok(())
}

/// Ends the cluster; nothing of it may be left.
fn gone(mut cluster: Cluster, trace: &Trace) -> Result<(), Error> {
    cluster.down()?;
    let left = trace.settled();
    if left.is_empty() {
        Ok(())
    } else {
        Err(Error::check("nothing of the cluster may be left", left.join("\n")))
    }
}

/// Runs a step; its failure tells which it was.
fn step<T>(number: u32, title: &str, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    run().map_err(|cause| match cause {
        cause @ Error::Step { .. } => cause,
        cause => Error::Step { number, title: title.to_owned(), cause: Box::new(cause) },
    })
}

/// Prints what a step has shown.
fn show<L: AsRef<str>>(number: u32, title: &str, lines: impl IntoIterator<Item = L>) {
    println!("[{number}] {title}");
    lines.into_iter().for_each(|line| println!("    {}", line.as_ref()));
}
