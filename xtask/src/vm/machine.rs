//! Booting the machine, with hardware acceleration where a machine was seen to boot with it, else emulated.
//!
//! Invariant: the emulator ends with us: by ^C, by a deadline, by an error, and by the kernel's hand if we are killed. Its
//! directory is gone after every run; one that a killed run has left goes with the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::guest::{self, Outcome, Part, Report};
use super::kernel;
use crate::error::Error;
use crate::place;
use crate::run::{Background, Run};

/// A machine with hardware acceleration is up in a second or two, if it comes up at all.
const PROBE_LIMIT: Duration = Duration::from_secs(15);
/// Where the host's root appears first; rxe, the switch and tests with a few regions fit easily.
const MEMORY_MIB: u32 = 1_536;
const CONSOLE_LINES_SHOWN: usize = 30;

const KVM: &str = "kvm";
/// A translated block cache that the kernel and a test program fit into; one host thread a processor.
const EMULATED: &str = "tcg,thread=multi,tb-size=512";

/// A kernel that is damaged ends at once, with its reason on the console. The time comes from the processor, as on a real
/// machine: an emulated one's is even, but the kernel does not believe it, and every look at a timer of the board costs
/// programs a system call and the emulator its lock.
const KERNEL_WORDS: &str = "console=ttyS0 quiet loglevel=4 oops=panic panic=-1 mitigations=off nokaslr \
    random.trust_cpu=on tsc=reliable clocksource=tsc";

/// One processor whose clock is the count of its instructions, one a nanosecond (while it waits, real time). What
/// is measured inside is then the same on an idle machine and on a busy one. A program that spins until another has done
/// something would spin for a whole slice of time: only sleeping and one-sided figures make sense.
const COUNTING: &str = "tcg,thread=single,tb-size=512";

/// A machine that can be booted.
#[derive(Clone)]
pub struct Machine {
    kernel: PathBuf,
    cache: PathBuf,
    accelerator: &'static str,
    nodes: u32,
}

impl Machine {
    /// Gets what a machine with so many nodes needs: a kernel, and the verdict on hardware acceleration.
    pub fn ready(nodes: u32) -> Result<Self, Error> {
        let cache = place::target()?.join("verbs-vm");
        fs::create_dir_all(&cache).map_err(Error::io(format!("make {}", cache.display())))?;
        remove_leftovers(&cache);
        let kernel = kernel::ready(&cache)?;
        let mut machine = Self { kernel, cache, accelerator: EMULATED, nodes };
        machine.accelerator = machine.probed()?;
        Ok(machine)
    }

    /// How fast it is: `kvm`, `tcg`, or `tcg, counting instructions`.
    pub fn accelerator(&self) -> &str {
        match self.accelerator {
            COUNTING => "tcg, counting instructions",
            other => other.split(',').next().unwrap_or(other),
        }
    }

    /// The same machine with the count of its instructions as its clock.
    pub fn counting(&self) -> Self {
        Self { accelerator: COUNTING, ..self.clone() }
    }

    /// Whether acceleration works: tried once a kernel of the host, by a boot.
    fn probed(&self) -> Result<&'static str, Error> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let verdict = self.cache.join("acceleration");
        let known = fs::read_to_string(&verdict).unwrap_or_default();
        if let Some(known) = known.strip_prefix(release.trim()).and_then(|rest| rest.strip_prefix(' ')) {
            return Ok(if known.trim() == KVM { KVM } else { EMULATED });
        }
        if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(EMULATED);
        }
        println!("test-verbs: probing hardware acceleration, once (up to {} s)", PROBE_LIMIT.as_secs());
        let accelerated = Self { accelerator: KVM, nodes: 1, ..self.clone() };
        let says = Part { title: "probe".into(), line: "true".into(), limit: PROBE_LIMIT };
        let outcomes = accelerated.run(&[says], PROBE_LIMIT, &mut |_, _| {});
        if let Err(error) = &outcomes
            && error.is_interruption()
        {
            return Err(Error::Interrupted);
        }
        let works = outcomes.is_ok_and(|outcomes| outcomes[0].code == Some(0));
        let found = if works { KVM } else { EMULATED };
        fs::write(&verdict, format!("{} {found}\n", release.trim()))
            .map_err(Error::io("keep the verdict"))?;
        Ok(found)
    }

    /// Boots it, runs the parts one after the other, and tells each line as it comes. An error means that there was no
    /// machine, or that it was not over in time; a part that did not end has no exit code.
    pub fn run(
        &self,
        parts: &[Part],
        limit: Duration,
        told: &mut dyn FnMut(usize, &str),
    ) -> Result<Vec<Outcome>, Error> {
        let place = RunDirectory::new(&self.cache)?;
        let (root, target) = (place::root(), place::target()?);
        let first = guest::first_files(&self.kernel, self.nodes, parts, &[&root, &target])?;
        fs::write(place.0.join("first-files"), first).map_err(Error::io("write the first file system"))?;
        let mut running = self.command(&place.0).start()?;
        let mut report = Report::new(parts.len());
        let outcome = follow(&mut running, &mut report, limit, told);
        running.stop();
        let console = || last_lines(&fs::read_to_string(place.0.join("console")).unwrap_or_default());
        let failed = |why: String, stray: &str| Error::Command {
            why,
            command: running.shown(),
            output: format!("{stray}\nthe machine's console:\n{}", console()),
        };
        match outcome {
            Err(error) => Err(error),
            Ok(false) => {
                Err(failed(format!("the machine was not done after {} s", limit.as_secs()), &running.text()))
            }
            Ok(true) => {
                let stray = std::mem::take(&mut report.stray);
                let mut outcomes = report.outcomes();
                if outcomes.iter().all(|outcome| outcome.code.is_none()) {
                    let text: String = outcomes.iter().map(|outcome| outcome.text.as_str()).collect();
                    return Err(failed(
                        "the machine ended before its job".to_owned(),
                        &format!("{stray}{text}"),
                    ));
                }
                for outcome in outcomes.iter_mut().filter(|outcome| outcome.code.is_none()) {
                    outcome.text.push_str(&format!("the machine ended; its console:\n{}\n", console()));
                }
                Ok(outcomes)
            }
        }
    }

    fn command(&self, place: &Path) -> Run {
        let inside = |name: &str| place.join(name).display().to_string();
        let counts = self.accelerator == COUNTING;
        let words = [
            // It is killed if we are.
            "setpriv",
            "--pdeathsig",
            "KILL",
            "qemu-system-x86_64",
            "-accel",
            self.accelerator,
            "-machine",
            "q35",
            "-cpu",
            "max",
            "-smp",
            if counts { "1" } else { "2" },
            "-m",
            &MEMORY_MIB.to_string(),
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-kernel",
            &self.kernel.join("vmlinux").display().to_string(),
            "-initrd",
            &inside("first-files"),
            "-append",
            KERNEL_WORDS,
            "-serial",
            &format!("file:{}", inside("console")),
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,multidevs=remap,readonly=on",
            "-device",
            "virtio-serial-pci",
            "-chardev",
            "file,id=report,path=/dev/fd/1",
            "-device",
            "virtserialport,chardev=report,name=report",
        ]
        .map(str::to_owned);
        let clock: &[&str] = if counts { &["-icount", "shift=0"] } else { &[] };
        Run::new(words).args(clock)
    }
}

/// Takes the report in until the machine has ended (true) or the time is over (false).
fn follow(
    running: &mut Background,
    report: &mut Report,
    limit: Duration,
    told: &mut dyn FnMut(usize, &str),
) -> Result<bool, Error> {
    let until = Instant::now() + limit;
    let mut taken = 0;
    loop {
        let ended = running.has_ended()?;
        let text = running.text();
        let fresh = &text[taken..];
        let whole = fresh.rfind('\n').map_or(0, |at| at + 1);
        for line in fresh[..whole].lines() {
            if let Some((part, line)) = report.line(line) {
                told(part, line);
            }
        }
        taken += whole;
        let left = until.saturating_duration_since(Instant::now());
        if ended || left.is_zero() {
            return Ok(ended);
        }
        running.pump(left, true)?;
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES_SHOWN)..].join("\n")
}

/// The directory of one run; gone with it.
struct RunDirectory(PathBuf);

impl RunDirectory {
    fn new(cache: &Path) -> Result<Self, Error> {
        let path = cache.join(format!("run.{}", std::process::id()));
        fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Removes what runs that were killed have left in the cache.
fn remove_leftovers(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix("run.").or(name.strip_prefix("stage.")));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // If it cannot be removed now, the next run tries again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cache: &Path) -> Machine {
        Machine { kernel: cache.join("kernel"), cache: cache.to_owned(), accelerator: EMULATED, nodes: 2 }
    }

    #[test]
    fn the_emulator_dies_with_us_and_reads_only() {
        let line = machine(Path::new("/c")).command(Path::new("/c/run.1")).shown();
        assert!(line.starts_with("setpriv --pdeathsig KILL qemu-system-x86_64 -accel tcg"), "{line}");
        assert!(line.contains("readonly=on") && line.contains("-initrd /c/run.1/first-files"), "{line}");
    }

    #[test]
    fn a_report_is_followed_line_by_line_to_its_end() {
        let script = "echo 'ssi-vm: begin 0'; echo one; echo two; echo 'ssi-vm: end 0 3'";
        let mut running = Run::new(["sh", "-c", script]).start().unwrap();
        let (mut report, mut seen) = (Report::new(1), Vec::new());
        let limit = Duration::from_secs(10);
        let told = &mut |part, line: &str| seen.push((part, line.to_owned()));
        assert!(follow(&mut running, &mut report, limit, told).unwrap());
        assert_eq!(seen, [(0, "one".to_owned()), (0, "two".to_owned())]);
        assert_eq!(report.outcomes()[0].code, Some(3));
    }

    #[test]
    fn a_machine_that_hangs_is_given_up() {
        let mut running = Run::line("sleep 100").start().unwrap();
        let limit = Duration::from_millis(50);
        assert!(!follow(&mut running, &mut Report::new(1), limit, &mut |_, _| {}).unwrap());
    }

    #[test]
    fn what_dead_runs_left_is_removed_and_what_living_ones_use_is_not() {
        let cache = std::env::temp_dir().join(format!("ssi-vm-cache-{}", std::process::id()));
        let ours = RunDirectory::new(&cache).unwrap();
        // No process has this number: the kernel's highest is 2^22.
        let dead = cache.join("run.4194305");
        fs::create_dir_all(&dead).unwrap();
        fs::create_dir_all(cache.join("kernel-1")).unwrap();
        remove_leftovers(&cache);
        assert!(ours.0.exists() && !dead.exists() && cache.join("kernel-1").exists());
        let path = ours.0.clone();
        drop(ours);
        assert!(!path.exists());
        fs::remove_dir_all(&cache).unwrap();
    }
}
