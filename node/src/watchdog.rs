//! The watchdog device of this machine: opened, fed, disarmed.
//!
//! [`membership::fencing::Feeder`] decides; this file has the descriptor. The device runs from the moment when it is opened. Only the letter
//! `V` right before it is closed stands it down, so a daemon that dies leaves it running: the daemon must be back, or the machine is reset.
//!
//! Invariant: nothing but the feeder's effects is written.

use crate::Error;
use crate::sys;
use base::Time;
use membership::fencing::Feeder;
use membership::fencing::feeder::{Effect, Event};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Any byte but the magic letter feeds it.
const FOOD: &[u8] = b".";
/// Stands it down when it is closed next.
const MAGIC: &[u8] = b"V";

/// An open device.
#[derive(Debug)]
pub struct Watchdog {
    path: PathBuf,
    device: Option<File>,
    timeout: Duration,
    feeder: Feeder,
    /// The last write has failed, and that was said.
    failing: bool,
}

impl Watchdog {
    /// Opens the device, which arms it, and asks it to wait for `wanted`. `None`, with a line in the log, if there is none here.
    ///
    /// # Errors
    /// [`Error::File`]: it is there and cannot be opened (somebody else feeds it, or permission).
    pub fn open(path: &Path, wanted: Duration) -> Result<Option<Watchdog>, Error> {
        let device = match OpenOptions::new().write(true).open(path) {
            Ok(device) => device,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::info!(device = %path.display(), "no watchdog device: a node that hangs is not reset");
                return Ok(None);
            }
            Err(source) => return Err(Error::File { path: path.into(), source }),
        };
        let seconds = i32::try_from(wanted.as_secs().max(1)).unwrap_or(i32::MAX);
        let granted = sys::set_watchdog_timeout(&device, seconds).or_else(|_| sys::watchdog_timeout(&device));
        let timeout = match granted {
            Ok(granted) => Duration::from_secs(u64::try_from(granted).unwrap_or(1).max(1)),
            Err(error) => {
                tracing::warn!(device = %path.display(), %error, "the watchdog device does not say how long it waits");
                wanted
            }
        };
        tracing::info!(device = %path.display(), ?timeout, "the watchdog device is armed");
        let feeder = Feeder::new(timeout);
        Ok(Some(Watchdog { path: path.into(), device: Some(device), timeout, feeder, failing: false }))
    }

    /// The machine is reset when it was not fed for so long.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Something has happened: feeds the device, or does not, or stands it down.
    pub fn handle(&mut self, now: Time, event: Event) {
        let mut effects = Vec::new();
        self.feeder.handle(now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Feed => self.write(FOOD),
                Effect::Disarm => {
                    self.write(MAGIC);
                    self.device = None;
                }
                Effect::Starve => tracing::error!(
                    device = %self.path.display(),
                    "this node's lease is over: the watchdog resets the machine in {:?} unless all that it served has ended before",
                    self.timeout
                ),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(device) = &mut self.device else { return };
        let written = device.write_all(bytes);
        if let Err(error) = &written
            && !self.failing
        {
            tracing::error!(device = %self.path.display(), %error, "the watchdog device cannot be fed");
        }
        self.failing = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Time {
        Time(1) + S * seconds
    }

    #[test]
    fn a_device_is_fed_while_there_is_a_lease_and_stood_down_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        std::fs::write(&path, "").unwrap();
        let mut watchdog = Watchdog::open(&path, S * 8).unwrap().unwrap();
        assert_eq!(watchdog.timeout(), S * 8, "a file grants nothing: what was wanted holds");
        let fed = || std::fs::read_to_string(&path).unwrap();
        watchdog.handle(at(0), Event::Lease(at(3)));
        watchdog.handle(at(1), Event::Tick);
        watchdog.handle(at(2), Event::Tick);
        assert_eq!(fed(), "..");
        watchdog.handle(at(4), Event::Tick);
        watchdog.handle(at(60), Event::Tick);
        assert_eq!(fed(), "..", "its lease is over");
        watchdog.handle(at(61), Event::Ended);
        watchdog.handle(at(62), Event::Stop);
        watchdog.handle(at(70), Event::Tick);
        assert_eq!(fed(), "...V");
    }

    #[test]
    fn a_daemon_that_dies_does_not_stand_it_down() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        std::fs::write(&path, "").unwrap();
        let mut watchdog = Watchdog::open(&path, S * 8).unwrap().unwrap();
        watchdog.handle(at(0), Event::Tick);
        drop(watchdog);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), ".");
    }

    #[test]
    fn a_machine_without_one_goes_on_and_one_that_cannot_be_opened_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Watchdog::open(&dir.path().join("none"), S).unwrap().is_none());
        assert!(matches!(Watchdog::open(dir.path(), S), Err(Error::File { .. })));
    }

    #[test]
    fn a_device_that_cannot_be_fed_does_not_stop_the_daemon() {
        // Every write to it fails: there is no room, ever.
        let full = Path::new("/dev/full");
        let mut watchdog = Watchdog::open(full, S * 4).unwrap().unwrap();
        watchdog.handle(at(0), Event::Tick);
        assert!(watchdog.failing);
        watchdog.handle(at(9), Event::Stop);
    }
}
