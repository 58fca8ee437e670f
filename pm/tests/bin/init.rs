//! For tests/init.rs: a parent to watch a shadow, a keeper that starts one `ssi-init` and ends it when its own standard
//! input closes, and that `ssi-init` itself.

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

fn main() {
    let mut args = std::env::args();
    if args.next().as_deref() == Some(pm::init::NAME) {
        pm::init::main();
    }
    let first = args.next();
    if first.as_deref() == Some("--parent") {
        return watch_child(&args.collect::<Vec<_>>());
    }
    let path = first.expect("a configuration file");
    let config =
        pm::init::InitConfig::decode(&std::fs::read(path).expect("readable")).expect("a configuration");
    std::process::exit(keep(&config));
}

/// Starts the child `argv` and prints its pid and each status word that wait4 gives for it.
#[expect(clippy::zombie_processes, reason = "it is waited for, by its pid: `Child` does not show stops")]
fn watch_child(argv: &[String]) {
    let child = std::process::Command::new(&argv[0]).args(&argv[1..]).spawn().expect("a child");
    println!("{}", child.id());
    let pid = Pid::from_raw(child.id() as i32);
    let all = WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    while let Ok(Some((_, status))) = rustix::process::waitpid(pid, all) {
        println!("{}", status.as_raw());
    }
}

/// Gives back the exit code of `ssi-init`.
fn keep(config: &pm::init::InitConfig) -> i32 {
    let pid = match pm::init::spawn(config) {
        Ok(pid) => Pid::from_raw(pid as i32).expect("a pid"),
        Err(error) => {
            eprintln!("keeper: {error}");
            return 77;
        }
    };
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("a child");
    let stdin = rustix::stdio::stdin();
    let mut ready =
        [PollFd::new(&pidfd, PollFlags::IN), PollFd::from_borrowed_fd(stdin, PollFlags::IN | PollFlags::HUP)];
    rustix::event::poll(&mut ready, None).expect("poll");
    if ready[0].revents().is_empty() {
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    }
    let status = rustix::process::waitpid(Some(pid), WaitOptions::empty()).expect("a child");
    status.and_then(|(_, status)| status.exit_status()).unwrap_or(99)
}
