//! The keeper (`ssi node start`): starts ssi-init and the two daemons, and starts a daemon again when it dies.
//!
//! pid 1 of a pid namespace cannot start a process outside of it, and the daemons must live outside the view; so
//! somebody out there has to. The keeper holds nothing: it may be killed and the node runs on, without restarts.
//!
//! ```text
//!   a life --(a daemon ends)--------------> start it again, at once the first times, then after a pause
//!      |-----(ssid ends with EVICTED)-----> the cluster gave this life up: end it, begin another
//!      |-----(ssi-init ends)--------------> the view is gone: end the daemons, begin another life
//!      |-----(ssi-init never began)-------> no view can be made here: leave, unless one stood before
//!      '-----(SIGTERM, SIGINT, SIGHUP)----> end the life, leave
//! ```

mod life;

use crate::config::{NodeConfig, StateDir};
use crate::daemon::control::EVICTED;
use crate::error::Error;
use crate::sys::{self, Signals};

use fabric::Role;
use life::Life;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait, waitpid};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Daemon deaths within [`QUICK`] after which the next start waits.
const QUICK_DEATHS_MAX: u32 = 5;
/// A daemon that lived longer than this died of something new.
const QUICK: Duration = Duration::from_secs(10);
/// The wait before starting a daemon that keeps dying.
const PAUSE: Duration = Duration::from_secs(1);

/// One of the two daemons.
struct Daemon {
    role: &'static str,
    pid: Option<Pid>,
    started: Instant,
    quick_deaths: u32,
    start_at: Instant,
}

/// How a life of the node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Somebody told the keeper to stop.
    Told,
    /// The cluster declared this life DOWN.
    Evicted,
    /// ssi-init is gone, and every process of the view with it.
    ViewGone,
    /// ssi-init could not make the view; it has said why.
    NoView,
}

/// Waits until no keeper has the state directory any more.
///
/// # Errors
/// One still has it after `limit`.
pub fn wait_until_free(state: &StateDir, limit: Duration) -> Result<(), Error> {
    let until = Instant::now() + limit;
    let path = state.0.join("lock");
    let lock = File::open(&path).map_err(|source| Error::File { path, source })?;
    while rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > until {
            return Err(Error::Said(format!("the node in {} does not end", state.0.display())));
        }
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
    }
    Ok(())
}

/// The keeper of one node.
pub struct Keeper {
    state: StateDir,
    config: NodeConfig,
    binary: PathBuf,
    daemons: [Daemon; 2],
    init: Option<Pid>,
    _lock: File,
}

impl Keeper {
    /// Takes the state directory for this node; only one keeper may have it.
    ///
    /// # Errors
    /// No or bad configuration; the directory is in use; the binary cannot be found.
    pub fn new(state: StateDir) -> Result<Keeper, Error> {
        let config = state.load()?;
        let path = state.0.join("lock");
        let lock = File::create(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Error::Said(format!(
                "{} is in use by another node that runs (see `ssi nodes`); stop it first: ssi node stop --dir {}",
                state.0.display(),
                state.0.display()
            ))
        })?;
        let binary = std::env::current_exe().map_err(Error::step("find the ssi binary"))?;
        let now = Instant::now();
        let daemon = |role| Daemon { role, pid: None, started: now, quick_deaths: 0, start_at: now };
        Ok(Keeper {
            state,
            config,
            binary,
            daemons: [daemon("ssid"), daemon("ssid-data")],
            init: None,
            _lock: lock,
        })
    }

    /// Runs the node, one life after the other, until it is told to stop.
    ///
    /// # Errors
    /// The view could not be made.
    pub fn run(mut self) -> Result<(), Error> {
        sys::set_name(c"ssi-keeper");
        let signals = Signals::block(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
            .map_err(Error::step("block signals"))?;
        self.end_former_life();
        self.check_ports()?;
        let mut stood = false;
        loop {
            let born = Instant::now();
            self.start_init()?;
            let end = self.live(&signals);
            self.end_life();
            match end {
                End::Told => return Ok(()),
                // What was never possible here will not become so; what was possible once may be again.
                End::NoView if !stood => return Err(Error::Said("this machine cannot hold a view".into())),
                End::NoView => {}
                End::Evicted | End::ViewGone => stood = true,
            }
            // A view that ends at once, again and again, must not keep the machine busy.
            let pause = Timespec { tv_sec: i64::from(born.elapsed() < QUICK), tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], Some(&pause));
        }
    }

    /// One life of the node.
    fn live(&mut self, signals: &Signals) -> End {
        loop {
            self.start_due_daemons();
            let timeout = self.time_to_next_start();
            let timeout =
                timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
            let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], timeout.as_ref());
            while let Some(signal) = signals.take() {
                if signal != libc::SIGCHLD {
                    return End::Told;
                }
            }
            if let Some(end) = self.reap() {
                return end;
            }
        }
    }

    fn start_init(&mut self) -> Result<(), Error> {
        std::fs::create_dir_all(self.state.run_dir()).map_err(Error::step("make the run directory"))?;
        let life = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |age| age.as_millis());
        let config = self.init_config(u64::try_from(life).unwrap_or(u64::MAX))?;
        let pid = pm::init::spawn(&config).map_err(|e| Error::Said(format!("start the view: {e}")))?;
        self.init = Pid::from_raw(pid.cast_signed());
        self.store_life();
        Ok(())
    }

    /// Ends what a keeper that was killed has left running: its view, and daemons that hold our ports.
    fn end_former_life(&self) {
        let ended = Life::load(&self.state).end();
        if ended > 0 {
            eprintln!(
                "ssi-keeper: ended {ended} processes of this node's former life, whose keeper had gone"
            );
        }
    }

    /// A daemon that cannot listen would be started again and again, and nobody would see why.
    fn check_ports(&self) -> Result<(), Error> {
        let listens = [Role::Control, Role::Data].map(|role| self.config.listens(role));
        for address in listens.into_iter().flatten() {
            let tcp = std::net::TcpListener::bind(address).map(drop);
            tcp.and_then(|()| std::net::UdpSocket::bind(address).map(drop)).map_err(Error::step(format!(
                "listen on {address} (address, rails and port of node.toml)"
            )))?;
        }
        Ok(())
    }

    fn store_life(&self) {
        let pids = self.init.into_iter().chain(self.daemons.iter().filter_map(|daemon| daemon.pid));
        if let Err(error) = Life::of(pids).store(&self.state) {
            eprintln!("ssi-keeper: {error}");
        }
    }

    fn init_config(&self, incarnation: u64) -> Result<pm::init::InitConfig, Error> {
        let key = self.state.key()?;
        Ok(crate::daemon::init_config(&self.state, &self.config, &self.binary, &key, incarnation))
    }

    fn start_due_daemons(&mut self) {
        let now = Instant::now();
        let mut started = false;
        for daemon in &mut self.daemons {
            if daemon.pid.is_some() || now < daemon.start_at {
                continue;
            }
            match start_daemon(&self.binary, &self.state, daemon.role) {
                Ok(pid) => daemon.pid = Some(pid),
                Err(error) => {
                    eprintln!("ssi-keeper: {error}");
                    daemon.start_at = now + PAUSE;
                }
            }
            daemon.started = now;
            started = true;
        }
        if started {
            self.store_life();
        }
    }

    fn time_to_next_start(&self) -> Option<Duration> {
        let now = Instant::now();
        let waiting = self.daemons.iter().filter(|daemon| daemon.pid.is_none());
        waiting.map(|daemon| daemon.start_at.saturating_duration_since(now)).min().map(|t| t.min(PAUSE / 2))
    }

    /// Takes in every child that ended. `Some` if that is the end of this life.
    fn reap(&mut self) -> Option<End> {
        let mut end = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == self.init {
                self.init = None;
                let failed = status.exit_status() == Some(pm::init::EXIT_FAILED);
                end = Some(if failed { End::NoView } else { End::ViewGone });
            }
            for daemon in self.daemons.iter_mut().filter(|daemon| daemon.pid == Some(pid)) {
                daemon.died();
                if status.exit_status() == Some(EVICTED) {
                    end = Some(End::Evicted);
                }
            }
        }
        end
    }

    /// Ends everything, the daemons first: their FUSE descriptors close, then the view's last copy goes with ssi-init.
    fn end_life(&mut self) {
        let pids = self.daemons.iter_mut().filter_map(|daemon| daemon.pid.take()).chain(self.init.take());
        for pid in pids {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        for socket in [self.state.admin_socket(), self.state.data_socket(), self.state.init_socket()] {
            let _ = std::fs::remove_file(socket);
        }
    }
}

impl Daemon {
    /// It has ended: when to start it again.
    fn died(&mut self) {
        self.pid = None;
        let quick = self.started.elapsed() < QUICK;
        self.quick_deaths = if quick { self.quick_deaths + 1 } else { 0 };
        let pause = if self.quick_deaths > QUICK_DEATHS_MAX { PAUSE } else { Duration::ZERO };
        self.start_at = Instant::now() + pause;
    }
}

fn start_daemon(binary: &PathBuf, state: &StateDir, role: &str) -> Result<Pid, Error> {
    let path = state.log_file(role);
    let log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|source| Error::File { path, source })?;
    let error_log = log.try_clone().map_err(Error::step("duplicate the log"))?;
    let mut command = Command::new(binary);
    command.arg("daemon").arg("--dir").arg(&state.0);
    if role == "ssid-data" {
        command.arg("--data");
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(error_log);
    let child = sys::in_new_session(&mut command).spawn().map_err(Error::step(format!("start {role}")))?;
    Ok(Pid::from_child(&child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_keeper() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir(dir.path().into());
        std::fs::write(state.config_file(), "cluster='c'\nid=1\nname='n'\naddress='127.0.0.1'").unwrap();
        let first = Keeper::new(state.clone()).unwrap();
        let second = Keeper::new(state).err().unwrap().to_string();
        assert!(second.contains("in use"), "{second}");
        drop(first);
    }
}
